/// The task of a question, named after the benchmark that has its form.
package enum SceneTask: String, Sendable, CaseIterable {
    /// Colour, count, position, "what is it": a word or two (VQAv2's form).
    case vqa
    /// "Is there a dog in the image?": yes or no (POPE's form).
    case pope
    /// "What does the text say?" (TextVQA's form).
    case text
    /// Three options, the answer is a letter (ScienceQA's and MMBench's form).
    case choice
    /// "Describe the image."
    case caption
    /// Level 2: the thing at the end of a path of one to four steps from thing to thing.
    case chain1, chain2, chain3, chain4
    /// Level 2: how many there are, up to nine.
    case count
    /// Level 2: two printed words, in the order that is asked for.
    case read
    /// Level 2: the sum of two or three printed numbers.
    case sum
    /// Level 2: the more frequent of two things, or the larger of two numbers.
    case compare
    /// Level 2: the one thing that is unlike all others.
    case odd
    /// Level 2: a thing that is absent, or not of a kind.
    case negation
    /// Level 2: the difference between two pictures side by side.
    case change

    /// The tasks of a level, in the order of reports.
    package static func tasks(level: Int) -> [SceneTask] {
        level == 1 ? [.vqa, .pope, .text, .choice, .caption]
            : [.chain1, .chain2, .chain3, .chain4, .count, .read, .sum, .compare, .odd, .negation, .change]
    }
}

/// A question about a scene and its one right answer.
package struct SceneQuestion: Sendable, Equatable {
    /// The question's task.
    package let task: SceneTask
    /// The question, without an image mark.
    package let question: String
    /// The one right answer.
    package let answer: String
}

/// A fact about a scene that a question asks for or a turn states. Items are numbered as in the layout.
enum SceneFact: Hashable {
    /// Whether a thing of this name is there.
    case presence(String)
    /// How many things have this name.
    case number(String)
    /// How many things there are.
    case total
    /// The item at a place.
    case place(Int)
    case colour(Int)
    case outline(Int)
    case word(Int)
    /// Whether something is printed at all.
    case hasText
    /// On which side of another item an item is.
    case order(Int, Int)
}

/// A question that a scene supports.
struct SceneCandidate {
    /// The form of a question.
    enum Form: CaseIterable {
        /// Verbatim one of Scenes' reference script.
        case classic
        /// About positions relative to each other, or the thing at a place.
        case relation
        /// Any other.
        case further
    }

    let question: SceneQuestion
    let form: Form
    /// How often it is chosen among the questions of its form.
    let weight: Double
    /// Facts needed for the answer. A turn that only asks for facts stated before would teach nothing about the picture.
    let asks: Set<SceneFact>
    /// Facts that question and answer state together.
    let states: Set<SceneFact>

    /// - Parameters:
    ///   - states: facts that the turn states in addition to those it asks for.
    ///   - isTold: whether the answer states the facts that the question asks for; a "no" to one colour does not state the colour.
    init(
        _ task: SceneTask, _ question: String, _ answer: String, form: Form, weight: Double = 1, asks: Set<SceneFact>,
        states: Set<SceneFact> = [], isTold: Bool = true
    ) {
        self.question = SceneQuestion(task: task, question: question, answer: answer)
        (self.form, self.weight, self.asks) = (form, weight, asks)
        self.states = isTold ? states.union(asks) : states
    }
}

extension SceneCandidate {
    static func yesNo(_ isTrue: Bool) -> String { isTrue ? "yes" : "no" }

    /// Three options, one right; the answer is its letter.
    static func choice(
        _ question: String, right: String, wrong: [String], form: Form, weight: Double, asks: Set<SceneFact>, states: Set<SceneFact> = [],
        _ random: inout SceneRandom
    ) -> SceneCandidate? {
        guard wrong.count == 2 else { return nil }
        let options = zip(["A", "B", "C"], random.shuffled([right] + wrong)).map { (letter: $0, option: $1) }
        guard let answer = options.first(where: { $0.option == right })?.letter else { return nil }
        let lines = options.map { "\($0.letter). \($0.option)" }.joined(separator: "\n")
        return SceneCandidate(
            .choice, "\(question)\n\(lines)\nAnswer with the letter.", answer, form: form, weight: weight, asks: asks, states: states)
    }
}
