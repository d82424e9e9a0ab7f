/// How the VQA evaluations make two spellings of one answer equal: Python's behaviour, character by character.
///
/// Follows `processPunctuation` and `processDigitArticle` of the VQA evaluation (GT-Vision-Lab/VQA, `vqaEval.py`), and the answer
/// processor that TextVQA's evaluation and LLaVA's VQAv2 submission add a first step to (`EvalAIAnswerProcessor`).
package enum VQAAnswer {
    /// The VQA evaluation's form of an answer: punctuation, then numbers, articles and contractions.
    package static func normalized(_ answer: String) -> String {
        withoutArticles(withoutPunctuation(stripped(answer)))
    }

    /// EvalAI's form: lower case, without commas and question marks, possessives split off, then the same.
    package static func evalAINormalized(_ answer: String) -> String {
        var text = answer.lowercased()
        text = replacing(",", with: "", in: text)
        text = replacing("?", with: "", in: text)
        text = replacing("'s", with: " 's", in: text)
        return normalized(text)
    }

    /// The fraction of people an answer agrees with, leaving out each in turn: the mean of `min(1, others with the same answer / 3)`.
    /// - Parameter people: their answers, in the form of `answer`.
    package static func accuracy(_ answer: String, people: [String]) -> Double {
        let agreeing = people.count { $0 == answer }
        return people.map { person in min(1, Double(agreeing - (person == answer ? 1 : 0)) / 3) }.mean ?? 0
    }

    /// Without line breaks, tabs, and white space around it.
    package static func stripped(_ answer: String) -> String {
        var scalars = answer.unicodeScalars.map { $0 == "\n" || $0 == "\t" ? " " : $0 }[...]
        while let first = scalars.first, isSpace(first) { scalars.removeFirst() }
        while let last = scalars.last, isSpace(last) { scalars.removeLast() }
        return string(scalars)
    }

    /// The words of a text, as Python's `str.split` finds them.
    static func words(_ text: String) -> [String] { text.unicodeScalars.split(whereSeparator: isSpace).map { string($0) } }

    // MARK: - Steps

    private static let punctuation: [Unicode.Scalar] = [
        ";", "/", "[", "]", "\"", "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!",
    ]

    /// If a mark has a space next to it anywhere in the text, or the text has a digit-comma-digit, the mark is removed; else it becomes a
    /// space. Then full stops that no digit follows are removed; the script's call removes at most 32.
    static func withoutPunctuation(_ text: String) -> String {
        let original = Array(text.unicodeScalars)
        let pairs = zip(original, original.dropFirst())
        let hasNumberWithComma = zip(pairs, original.dropFirst(2)).contains { isDigit($0.0) && $0.1 == "," && isDigit($1) }
        var scalars = original
        for mark in punctuation where original.contains(mark) {
            let isBesideSpace = pairs.contains { ($0 == mark && $1 == " ") || ($0 == " " && $1 == mark) }
            if isBesideSpace || hasNumberWithComma {
                scalars.removeAll { $0 == mark }
            } else {
                scalars = scalars.map { $0 == mark ? " " : $0 }
            }
        }
        var kept: [Unicode.Scalar] = []
        var removed = 0
        for (index, scalar) in scalars.enumerated() {
            if scalar == ".", removed < 32, index + 1 == scalars.count || !isDigit(scalars[index + 1]) {
                removed += 1
            } else {
                kept.append(scalar)
            }
        }
        return string(kept)
    }

    /// Lower case, number words as digits, no articles, contractions with their apostrophe, single spaces.
    static func withoutArticles(_ text: String) -> String {
        words(text.lowercased()).map { numbers[$0] ?? $0 }
            .filter { $0 != "a" && $0 != "an" && $0 != "the" }
            .map { contractions[$0] ?? $0 }
            .joined(separator: " ")
    }

    /// Characters for which Python's `str.isspace` is true.
    private static func isSpace(_ scalar: Unicode.Scalar) -> Bool {
        scalar.properties.isWhitespace || (0x1C...0x1F).contains(scalar.value)
    }

    /// Characters that `\d` matches in Python: decimal digits of any script.
    private static func isDigit(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.generalCategory == .decimalNumber }

    private static func string(_ scalars: some Sequence<Unicode.Scalar>) -> String {
        var text = String.UnicodeScalarView()
        text.append(contentsOf: scalars)
        return String(text)
    }

    /// Replaces by code point, so that a combining mark after the text does not hide it.
    private static func replacing(_ part: String, with new: String, in text: String) -> String {
        let (part, scalars) = (Array(part.unicodeScalars), Array(text.unicodeScalars))
        var result = String.UnicodeScalarView()
        var index = 0
        while index < scalars.count {
            if scalars[index...].starts(with: part) {
                result.append(contentsOf: new.unicodeScalars)
                index += part.count
            } else {
                result.append(scalars[index])
                index += 1
            }
        }
        return String(result)
    }

    // MARK: - Tables

    private static let numbers: [String: String] = [
        "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
        "nine": "9", "ten": "10",
    ]

    /// The official table without the entries that never match lower-case words, or that change nothing.
    private static let contractions: [String: String] = [
        "aint": "ain't", "arent": "aren't", "cant": "can't", "couldve": "could've", "couldnt": "couldn't", "couldn'tve": "couldn't've",
        "couldnt've": "couldn't've", "didnt": "didn't", "doesnt": "doesn't", "dont": "don't", "hadnt": "hadn't", "hadnt've": "hadn't've",
        "hadn'tve": "hadn't've", "hasnt": "hasn't", "havent": "haven't", "hed": "he'd", "hed've": "he'd've", "he'dve": "he'd've",
        "hes": "he's", "howd": "how'd", "howll": "how'll", "hows": "how's", "isnt": "isn't", "itd": "it'd", "itd've": "it'd've",
        "it'dve": "it'd've", "itll": "it'll", "maam": "ma'am", "mightnt": "mightn't", "mightnt've": "mightn't've",
        "mightn'tve": "mightn't've", "mightve": "might've", "mustnt": "mustn't", "mustve": "must've", "neednt": "needn't",
        "notve": "not've", "oclock": "o'clock", "oughtnt": "oughtn't", "ow's'at": "'ow's'at", "'ows'at": "'ow's'at",
        "'ow'sat": "'ow's'at", "shant": "shan't", "shed've": "she'd've", "she'dve": "she'd've", "shouldve": "should've",
        "shouldnt": "shouldn't", "shouldnt've": "shouldn't've", "shouldn'tve": "shouldn't've", "somebody'd": "somebodyd",
        "somebodyd've": "somebody'd've", "somebody'dve": "somebody'd've", "somebodyll": "somebody'll", "somebodys": "somebody's",
        "someoned": "someone'd", "someoned've": "someone'd've", "someone'dve": "someone'd've", "someonell": "someone'll",
        "someones": "someone's", "somethingd": "something'd", "somethingd've": "something'd've", "something'dve": "something'd've",
        "somethingll": "something'll", "thats": "that's", "thered": "there'd", "thered've": "there'd've", "there'dve": "there'd've",
        "therere": "there're", "theres": "there's", "theyd": "they'd", "theyd've": "they'd've", "they'dve": "they'd've",
        "theyll": "they'll", "theyre": "they're", "theyve": "they've", "twas": "'twas", "wasnt": "wasn't", "wed've": "we'd've",
        "we'dve": "we'd've", "weve": "we've", "werent": "weren't", "whatll": "what'll", "whatre": "what're", "whats": "what's",
        "whatve": "what've", "whens": "when's", "whered": "where'd", "wheres": "where's", "whereve": "where've", "whod": "who'd",
        "whod've": "who'd've", "who'dve": "who'd've", "wholl": "who'll", "whos": "who's", "whove": "who've", "whyll": "why'll",
        "whyre": "why're", "whys": "why's", "wont": "won't", "wouldve": "would've", "wouldnt": "wouldn't", "wouldnt've": "wouldn't've",
        "wouldn'tve": "wouldn't've", "yall": "y'all", "yall'll": "y'all'll", "y'allll": "y'all'll", "yall'd've": "y'all'd've",
        "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've", "youd": "you'd", "youd've": "you'd've", "you'dve": "you'd've",
        "youll": "you'll", "youre": "you're", "youve": "you've",
    ]
}
