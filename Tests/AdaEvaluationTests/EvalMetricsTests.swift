import AdaLLaVA
import Foundation
import Testing

@testable import AdaEvaluation

@Suite struct EvalMetricsTests {
    struct NormalizationCase: Decodable {
        let text: String
        let vqa: String
        let evalai: String
    }

    // A mismatch means that VQAv2 and TextVQA scores differ from the official ones, and that the VQAv2 server gets other answers.
    // Expected: processPunctuation + processDigitArticle of GT-Vision-Lab/VQA (vqaEval.py, master) and EvalAIAnswerProcessor of LLaVA's
    // m4c_evaluator.py, run by Python 3.11 on these texts; 300 of them are random.
    @Test("normalizes answers as the official scripts") func normalizesAnswersAsTheOfficialScripts() throws {
        let data = try Data(contentsOf: Samples.url("vqa-normalization/cases.json"))
        let cases = try JSONDecoder().decode([NormalizationCase].self, from: data)
        #expect(cases.count > 370)
        for item in cases {
            // Compared by code point: Swift's == would take a composed and a decomposed letter for equal.
            #expect(Array(VQAAnswer.normalized(item.text).unicodeScalars) == Array(item.vqa.unicodeScalars), "\(item.text.debugDescription)")
            #expect(
                Array(VQAAnswer.evalAINormalized(item.text).unicodeScalars) == Array(item.evalai.unicodeScalars), "\(item.text.debugDescription)")
        }
    }

    // A mismatch means that an answer some people gave is not credited as "min(people / 3, 1), averaged over leaving each person out".
    // Worked out by hand from that definition (visualqa.org/evaluation): with k of 10 people agreeing, k leave-outs see k - 1 others.
    @Test("credits answers by agreement") func creditsAnswersByAgreement() {
        func accuracy(agreeing: Int) -> Double {
            VQAAnswer.accuracy("x", people: Array(repeating: "x", count: agreeing) + Array(repeating: "y", count: 10 - agreeing))
        }
        #expect(accuracy(agreeing: 0) == 0)
        #expect(abs(accuracy(agreeing: 1) - 0.3) < 1e-12)
        #expect(abs(accuracy(agreeing: 2) - 0.6) < 1e-12)
        #expect(abs(accuracy(agreeing: 3) - 0.9) < 1e-12)
        #expect(accuracy(agreeing: 4) == 1)
        #expect(accuracy(agreeing: 10) == 1)
    }

    // A mismatch means that POPE takes a yes for a no. Expected: the rule of POPE's evaluate.py, applied by hand: first sentence, commas
    // away, then the words No, no, not.
    @Test("reads yes and no", arguments: [
        ("yes", true), ("No", false), ("no.", false), ("Yes, there is no dog", false), ("Nothing", true), ("It is not. Yes", false),
        ("Yes. No", true), ("No, there is", false), ("NO", true), ("", true), ("there is\nno dog", true),
    ]) func readsYesAndNo(answer: String, isYes: Bool) {
        #expect(YesNoCounts.isYes(answer) == isYes)
    }

    // A mismatch means that MME's answers are read differently from its calculation.py: by the whole lower-case answer or its first four
    // characters. Worked out by hand.
    @Test("reads MME answers", arguments: [
        ("Yes", "yes"), ("no", "no"), ("No, it is", "no"), ("Yes, it is", "yes"), ("I know", "other"), ("know", "no"), ("a yes", "other"), ("", "other"),
        ("It's no", "other"), ("Not", "no"),
    ]) func readsMMEAnswers(answer: String, reading: String) {
        #expect(MMEBenchmark.reading(answer) == reading)
    }

    struct LetterCases: Decodable {
        struct Case: Decodable {
            let answer: String
            let letter: String?
        }
        let options: [String: String]
        let cases: [Case]
    }

    // A mismatch means that MMBench counts another option than the official script. Expected: can_infer of OpenCompass's
    // tools/eval_mmbench.py, run by Python 3.11 on these answers; 340 of them are random.
    @Test("Option letters are read as MMBench's official script reads them") func infersOptionLetters() throws {
        let read = try JSONDecoder().decode(LetterCases.self, from: Data(contentsOf: Samples.url("mmbench-letters/cases.json")))
        let options = read.options.sorted { $0.key < $1.key }.map { (letter: $0.key, text: $0.value) }
        #expect(read.cases.count > 390 && Set(read.cases.map(\.letter)).count == 6)
        for item in read.cases {
            #expect(OptionLetter.infer(from: item.answer, options: options) == item.letter, "\(item.answer.debugDescription)")
        }
    }

    // A mismatch means that ScienceQA counts another option than the one named. Expected: the rules of LLaVA's eval_science_qa.py by hand.
    @Test("reads ScienceQA letters", arguments: [
        ("B", "B"), ("B. a town", "B"), ("The answer is C.", "C"), ("B.", nil), ("The answer is C", nil), ("b", nil),
        ("The answer is A. The answer is B.", nil), ("F", nil), (" D\n", "D"),
    ]) func readsScienceQALetters(answer: String, letter: String?) {
        #expect(ScienceQABenchmark.letter(in: answer) == letter)
    }

    // A mismatch means that reported percentiles, deviations or means are wrong in every command that measures time.
    // Expected: numpy.percentile([…]) with its default (linear) method and numpy.std(ddof=1), by hand.
    @Test("percentiles and deviations are those of NumPy") func statisticsInterpolate() throws {
        let statistics = try #require(SampleStatistics([4.0, 1, 3, 2]))
        #expect(statistics.mean == 2.5)
        #expect(statistics.median == 2.5)
        #expect(statistics.percentile(90) == 3.7)
        #expect(abs(statistics.percentile(99) - 3.97) < 1e-12)
        #expect(abs(statistics.deviation - (5.0 / 3).squareRoot()) < 1e-12)
        #expect((statistics.minimum, statistics.maximum) == (1, 4))
        #expect((statistics.percentile(-5), statistics.percentile(400)) == (1, 4))
        let one = try #require(SampleStatistics([7.0]))
        #expect((one.deviation, one.percentile(99)) == (0, 7))
        #expect(SampleStatistics([Double]()) == nil)
        #expect(SampleStatistics([1, .nan]) == nil)
    }

    // A mismatch means that the Pareto front shows a point that another beats in time and score, or hides one that none beats.
    @Test("Pareto front keeps unbeaten points") func paretoFrontKeepsUnbeatenPoints() {
        let front = EvaluationCharts.paretoFront([(3, 0.5), (1, 0.2), (2, 0.6), (1, 0.3), (4, 0.6), (5, 0.9)])
        #expect(front.map(\.time) == [1, 2, 5])
        #expect(front.map(\.score) == [0.3, 0.6, 0.9])
    }
}
