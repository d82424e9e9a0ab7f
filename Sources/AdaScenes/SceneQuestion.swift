/// What a question is about, named after the benchmarks it stands in for.
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
    /// Level 2: what stands at the end of one to four steps from thing to thing.
    case chain1, chain2, chain3, chain4
    /// Level 2: how many there are, up to nine.
    case count
    /// Level 2: two printed words, in the order that is asked for.
    case read
    /// Level 2: the sum of two or three printed numbers.
    case sum
    /// Level 2: of what there are more, or which number is larger.
    case compare
    /// Level 2: the one thing that is unlike all others.
    case odd
    /// Level 2: what is not there, or not of a kind.
    case negation
    /// Level 2: what differs between two pictures beside each other.
    case change

    /// The tasks of a level, in the order of reports.
    package static func tasks(level: Int) -> [SceneTask] {
        level == 1 ? [.vqa, .pope, .text, .choice, .caption]
            : [.chain1, .chain2, .chain3, .chain4, .count, .read, .sum, .compare, .odd, .negation, .change]
    }
}

/// A question about a scene and its one right answer.
package struct SceneQuestion: Sendable, Equatable {
    /// What the question asks for.
    package let task: SceneTask
    /// The question, without an image mark.
    package let question: String
    /// The one right answer.
    package let answer: String
}

/// Something about a scene that a question asks for or a turn tells. Items are numbered as in the layout.
enum SceneFact: Hashable {
    /// Whether a thing of this name is there.
    case presence(String)
    /// How many things have this name.
    case number(String)
    /// How many things there are.
    case total
    /// What item stands where it stands.
    case place(Int)
    case colour(Int)
    case outline(Int)
    case word(Int)
    /// Whether something is printed at all.
    case hasText
    /// On which side of another an item stands.
    case order(Int, Int)
}

/// A question that a scene supports.
struct SceneCandidate {
    /// Whose form a question has.
    enum Form: CaseIterable {
        /// Verbatim one of Scenes' reference script.
        case classic
        /// About where things stand to each other, or what stands at a place.
        case relation
        /// Any other.
        case further
    }

    let question: SceneQuestion
    let form: Form
    /// How often it is chosen among the questions of its form.
    let weight: Double
    /// What one must know to answer; a turn that asks only for what was already told would teach nothing about the picture.
    let asks: Set<SceneFact>
    /// What question and answer tell together.
    let states: Set<SceneFact>

    /// - Parameters:
    ///   - states: what the turn tells beside what it asks for.
    ///   - isTold: whether the answer tells what the question asks for; a "no" to one colour does not tell the colour.
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
