import Foundation
import Testing

@testable import AdaScenes

private let generator = Result { try SceneGenerator(seed: 7) }

/// Layout, regions and turns of a scene, without painting it.
private func sketch(seed: UInt64, index: Int, turns: Int) throws -> (layout: SceneLayout, regions: [SceneRegion], turns: [SceneQuestion]) {
    var random = SceneRandom(seed: seed, index: index)
    let layout = SceneLayout(random: &random)
    let renderer = try generator.get().renderer
    var questionRandom = SceneRandom(seed: random.next(), index: index)
    return (layout, renderer.regions(renderer.place(layout)), SceneQuestions(layout: layout).turns(turns, &questionRandom))
}

@Suite struct SceneQuestionTests {
    @Test("answers follow from the regions") func answersFollowFromTheRegions() throws {
        // A failure means that the model is trained on wrong answers, or on questions with more than one.
        for index in 0..<2500 {
            let scene = try sketch(seed: 21, index: index, turns: 8)
            let oracle = SceneOracle(scene.regions)
            #expect(oracle.things.map(\.name) == scene.layout.things.map(\.name))
            for turn in scene.turns {
                let expected = oracle.answer(to: turn.question)
                #expect(turn.answer == expected, "scene \(index), \(scene.layout.things.map(\.name)): \(turn)")
            }
        }
    }

    @Test("every candidate has one answer") func everyCandidateHasOneAnswer() throws {
        // A failure means that a rare question, which the draw seldom picks, is wrong.
        for index in 0..<800 {
            var random = SceneRandom(seed: 22, index: index)
            let layout = SceneLayout(random: &random)
            let renderer = try generator.get().renderer
            let oracle = SceneOracle(renderer.regions(renderer.place(layout)))
            let candidates = SceneQuestions(layout: layout).candidates(&random)
            #expect(Set(candidates.map(\.question.question)).count == candidates.count)
            for candidate in candidates {
                #expect(
                    oracle.answer(to: candidate.question.question) == candidate.question.answer, "scene \(index): \(candidate.question)")
                if candidate.form == .classic {
                    let isChoice = candidate.question.task == .choice && candidate.question.question.contains(" is shown?")
                    #expect(isChoice || oracle.classic(candidate.question.question) != nil, "no classic form: \(candidate.question)")
                }
            }
        }
    }

    @Test("classic forms have the greater part") func classicFormsHaveTheGreaterPart() throws {
        // A failure means that a question form of Scenes' reference script is not trained, or that other forms crowd it out.
        let forms = [
            "is there": #"Is there an? \w+ in the image\?"#, "text": #"What does the text say\?"#, "colour": #"What color is the \w+\?"#,
            "shape": #"What shape is \w+\?"#, "number": #"How many \w+ are there\?"#, "things": #"How many things are in the image\?"#,
            "what": #"What is in the image\?"#, "left": #"What is on the left\?"#, "right": #"What is on the right\?"#,
            "top": #"What is at the top\?"#, "bottom": #"What is at the bottom\?"#,
            "choice": #"Which (?:animal|food|vehicle|object|nature) is shown\?\nA\. \w+\nB\. \w+\nC\. \w+\nAnswer with the letter\."#,
            "caption": #"Describe the image\."#,
        ]
        let answers = [
            "is there": "yes|no", "text": "[A-Z]{3,6}", "colour": "[a-z]+", "shape": "[a-z]+", "number": "zero|one|two|three|four",
            "things": "one|two|three|four", "what": #"[a-z]+|[a-z]+ [a-z]+|word [A-Z]+"#, "choice": "A|B|C",
            "caption": #"The image shows (?:(?:an? [a-z ]+?|the word [A-Z]+)(?: and |\.$))+"#,
        ]
        let side = #"[a-z]+|[a-z]+ [a-z]+|word [A-Z]+"#
        var counts: [String: Int] = [:]
        var classic = 0
        var positional = 0
        var words: [Bool] = []
        var pictograms: [Bool] = []
        var popes: [String: Int] = [:]
        let total = 3000
        for index in 0..<total {
            let scene = try sketch(seed: 31, index: index, turns: 1)
            let turn = try #require(scene.turns.first)
            #expect(scene.turns.count == 1)
            let form = forms.first { SceneOracle.parts(turn.question, $0.value) != nil }?.key
            if let form {
                counts[form, default: 0] += 1
                #expect(SceneOracle.parts(turn.answer, "(?:" + (answers[form] ?? side) + ")") != nil, "\(turn)")
                classic += 1
            } else if turn.question.contains(" of ") || turn.question.contains("above") || turn.question.contains("below")
                || turn.question.contains(" the left") || turn.question.contains(" the right") || turn.question.contains("at the ")
            {
                positional += 1
            }
            if turn.task == .pope { popes[turn.answer, default: 0] += 1 }
            words += scene.layout.things.compactMap(\.word).map(SceneWords.classic.contains)
            pictograms += scene.layout.things.compactMap(\.pictogram).map(Pictogram.classic.contains)
        }
        for form in forms.keys { #expect(counts[form, default: 0] >= 15, "\(form): \(counts)") }
        #expect((0.66...0.80).contains(Double(classic) / Double(total)), "\(classic)")
        #expect((0.11...0.19).contains(Double(positional) / Double(total)), "\(positional)")
        #expect((0.53...0.67).contains(Double(words.count { $0 }) / Double(words.count)))
        #expect((0.71...0.79).contains(Double(pictograms.count { $0 }) / Double(pictograms.count)))
        let yes = Double(popes["yes", default: 0]) / Double(popes.values.reduce(0, +))
        #expect(Set(popes.keys) == ["yes", "no"] && (0.40...0.60).contains(yes), "\(popes)")
    }

    @Test("kinds of one another never meet") func kindsOfOneAnotherNeverMeet() throws {
        // A failure means that "Is there a bird?" is asked, and answered with no, where an owl sits.
        #expect(Pictogram.all.filter { $0.name == "owl" || $0.name == "bird" }.count == 2)
        for index in 0..<3000 {
            var random = SceneRandom(seed: 41, index: index)
            let layout = SceneLayout(random: &random)
            let pictograms = layout.things.compactMap(\.pictogram)
            for first in pictograms { #expect(!pictograms.contains { first.isConfusable(with: $0) }, "\(pictograms.map(\.name))") }
            for candidate in SceneQuestions(layout: layout).candidates(&random) where candidate.question.answer == "no" {
                guard let asked = SceneOracle.parts(candidate.question.question, #"Is th(?:ere|is) an? (\w+).*\?"#)?.first,
                    let pictogram = Pictogram.all.first(where: { $0.name == asked })
                else { continue }
                #expect(!pictograms.contains { pictogram.isConfusable(with: $0) }, "\(candidate.question) \(pictograms.map(\.name))")
            }
        }
    }

    @Test("turns do not repeat themselves") func turnsDoNotRepeatThemselves() throws {
        // A failure means that a conversation teaches to copy an earlier answer instead of looking.
        var lengths: [Int: Int] = [:]
        for index in 0..<1500 {
            let turns = try sketch(seed: 51, index: index, turns: 5).turns
            lengths[turns.count, default: 0] += 1
            #expect((1...5).contains(turns.count))
            #expect(Set(turns.map(\.question)).count == turns.count)
            if let caption = turns.firstIndex(where: { $0.task == .caption }) { #expect(caption == turns.count - 1, "\(turns)") }
            #expect(turns.count { $0.task == .text } <= 2, "\(turns)")
            #expect(turns.count { $0.question.hasPrefix("How many things") } <= 1, "\(turns)")
            // What the text says is told once only.
            for (number, turn) in turns.enumerated() where turn.task == .text {
                #expect(!turns[..<number].contains { $0.answer.hasSuffix(turn.answer) }, "\(turns)")
            }
            // After "yes, the dog is there" nobody asks which animal is shown.
            for (number, turn) in turns.enumerated() where turn.question == "What is in the image?" {
                #expect(!turns[..<number].contains { $0.answer == turn.answer || $0.question.contains(" \(turn.answer)s are") }, "\(turns)")
            }
        }
        #expect(lengths[5, default: 0] > 800, "\(lengths)")
    }

    @Test("more turns leave the picture alone") func moreTurnsLeaveThePictureAlone() throws {
        // A failure means that a tower pretrained on the regions of one set meets other pictures in the set with conversations.
        let generator = try generator.get()
        for index in 0..<5 {
            let (one, many) = (try generator.scene(index), try generator.scene(index, turns: 6))
            #expect(one.image == many.image && one.regions == many.regions && one.things == many.things)
        }
    }

    @Test("relations follow the places") func relationsFollowThePlaces() {
        // A failure means that left and right or above and below are taught the wrong way round.
        let cat = SceneThing.pictogram(Pictogram.classic[0])
        let dog = SceneThing.pictogram(Pictogram.classic[1])
        let circle = SceneThing.shape(.circle, .red)
        let row = SceneQuestions(layout: SceneLayout(things: [cat, dog], places: [.left, .right]))
        #expect(row.neighbour(.left, of: 1) == 0 && row.neighbour(.right, of: 0) == 1)
        #expect(row.neighbour(.above, of: 0) == nil && row.neighbour(.left, of: 0) == nil)
        let three = SceneQuestions(layout: SceneLayout(things: [cat, dog, circle], places: [.topLeft, .topRight, .bottom]))
        #expect(three.neighbour(.below, of: 0) == 2 && three.neighbour(.below, of: 1) == 2)
        #expect(three.neighbour(.above, of: 2) == nil)
        #expect(three.neighbour(.right, of: 2) == nil)
        let four = SceneQuestions(
            layout: SceneLayout(things: [cat, dog, circle, cat], places: [.topLeft, .topRight, .bottomLeft, .bottomRight]))
        #expect(four.neighbour(.below, of: 1) == 3 && four.neighbour(.left, of: 1) == 0 && four.neighbour(.above, of: 2) == 0)
        // Two cats: "the cat" says nothing.
        #expect(four.allRelations.allSatisfy { $0.reference == 1 || $0.reference == 2 })
    }

    @Test("plurals are both right and plain") func pluralsAreBothRightAndPlain() throws {
        // A failure means that the model meets "cherrys" for the first time when somebody types it, or never learns "cherries".
        func named(_ name: String) throws -> Pictogram { try #require(Pictogram.all.first { $0.name == name }) }
        let expected = [
            "cherry": ("cherries", "cherrys"), "bus": ("buses", "bus"), "fish": ("fish", "fishs"), "mouse": ("mice", "mouses"),
            "fox": ("foxes", "foxs"), "key": ("keys", "keys"), "grapes": ("grapes", "grapes"),
        ]
        for (name, plurals) in expected {
            let pictogram = try named(name)
            #expect(pictogram.plural == plurals.0 && pictogram.plainPlural == plurals.1)
        }
        let cherries = SceneLayout(things: [.pictogram(try named("cherry"))], places: [.center])
        var asked: [String: Int] = [:]
        for index in 0..<400 {
            var random = SceneRandom(seed: 61, index: index)
            for candidate in SceneQuestions(layout: cherries).candidates(&random) where candidate.question.question.contains("cherr") {
                asked[candidate.question.question, default: 0] += 1
            }
        }
        #expect((140...260).contains(asked["How many cherries are there?", default: 0]), "\(asked)")
        #expect((140...260).contains(asked["How many cherrys are there?", default: 0]), "\(asked)")
    }

    @Test("words can be read letter by letter") func wordsCanBeReadLetterByLetter() {
        // A failure means that a letter is never seen, or that a word could not be printed.
        let all = SceneWords.classic + SceneWords.further
        #expect(SceneWords.classic.count == 30 && SceneWords.further.count >= 240 && Set(all).count == all.count)
        #expect(all.allSatisfy { SceneOracle.parts($0, "[A-Z]{3,6}") != nil })
        var random = SceneRandom(seed: 71, index: 0)
        let strings = (0..<2000).map { _ in SceneWords.letters(&random) }
        #expect(strings.allSatisfy { SceneOracle.parts($0, "[A-Z]{3,5}") != nil })
        #expect(Set(strings.joined()) == Set("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
        let drawn = (0..<3000).map { _ in SceneWords.pick(&random, maxLetters: 4) }
        #expect(drawn.allSatisfy { SceneWords.known.contains($0) ? $0.count <= 4 : $0.count <= 5 })
        #expect((0.06...0.14).contains(Double(drawn.count { !SceneWords.known.contains($0) }) / 3000))
    }
}

@Suite struct SceneRegionTests {
    @Test("regions lie in the picture") func regionsLieInThePicture() throws {
        // A failure means that a vision tower is taught with boxes beside what they name.
        var nouns: Set<String> = []
        for index in 0..<1200 {
            let regions = try sketch(seed: 81, index: index, turns: 1).regions
            for (number, region) in regions.enumerated() {
                let box = region.box
                #expect(
                    box.count == 4 && box[0] >= 0 && box[1] >= 0 && box[2] <= 112 && box[3] <= 112 && box[0] < box[2] && box[1] < box[3])
                if let noun = region.labels["thing"] { nouns.insert(noun) }
                guard region.labels["thing"] == "word" else {
                    let keys = Set(region.labels.keys)
                    #expect([["thing"], ["thing", "color"], ["character"]].contains(keys), "\(region)")
                    continue
                }
                let letters = regions[(number + 1)...].prefix { $0.labels["character"] != nil }
                let spelled = letters.compactMap { $0.labels["character"] }.joined()
                #expect(region.labels["word"] == (SceneWords.known.contains(spelled) ? spelled : nil), "\(region) \(spelled)")
                #expect(letters.allSatisfy { $0.box[1] == box[1] && $0.box[3] == box[3] && $0.box[0] >= box[0] && $0.box[2] <= box[2] })
                for (first, second) in zip(letters, letters.dropFirst()) { #expect(first.box[2] == second.box[0]) }
                // Only the plate's margin is left beside the letters.
                if let first = letters.first, let last = letters.last {
                    #expect(first.box[0] - box[0] <= 6 && box[2] - last.box[2] <= 6, "\(region) \(letters)")
                }
            }
        }
        #expect(nouns.count > 120)
    }

    @Test("boxes fit what is drawn") func boxesFitWhatIsDrawn() throws {
        // A failure means that boxes are shifted or loose: the picture changes outside of them, or not at their edges.
        let renderer = try generator.get().renderer
        let empty = SceneLayout(things: [], places: [])
        var random = SceneRandom(seed: 1, index: 1)
        let ground = try #require(renderer.render(empty.background, placed: [], random: &random))
        let things: [SceneThing] = [
            .shape(.square, .red), .shape(.triangle, .blue), .shape(.heart, .black), .word("STOP"), .pictogram(Pictogram.all[60]),
        ]
        for thing in things {
            for place: SceneLayout.Place in [.topLeft, .bottomRight, .center] {
                let layout = SceneLayout(things: [thing], places: [place])
                let placed = renderer.place(layout)
                let picture = try #require(renderer.render(layout.background, placed: placed, random: &random))
                let changed = (0..<112 * 112).filter { pixel in
                    (0..<3).contains { abs(Int(picture.pixels[pixel * 3 + $0]) - Int(ground.pixels[pixel * 3 + $0])) > 3 }
                }
                let box = try #require(renderer.regions(placed).first).box
                let columns = changed.map { $0 % 112 }
                let rows = changed.map { $0 / 112 }
                let drawn = [columns.min() ?? 0, rows.min() ?? 0, (columns.max() ?? 0) + 1, (rows.max() ?? 0) + 1]
                for (edge, found) in zip(box, drawn) { #expect(abs(edge - found) <= 1, "\(thing) at \(place): \(box), drawn \(drawn)") }
            }
        }
    }

    @Test("other sizes scale the scene") func otherSizesScaleTheScene() throws {
        // A failure means that larger pictures show another scene, or letters of the wrong size.
        let large = try SceneGenerator(seed: 7, size: 224)
        let small = try generator.get()
        for index in 0..<40 {
            let (one, two) = (try small.scene(index), try large.scene(index))
            #expect(one.things == two.things && one.turns == two.turns && two.image.width == 224)
            for (first, second) in zip(one.regions, two.regions) where first.labels["thing"] != nil {
                for (a, b) in zip(first.box, second.box) { #expect(abs(a * 2 - b) <= 12, "\(first) \(second)") }
            }
        }
    }

    @Test("pixels match the reference script's filter") func pixelsMatchTheReferenceScriptsFilter() {
        // A failure means that things are scaled otherwise than in the pictures that the model is scored on.
        #expect(abs(Lanczos.cardinalSine(0.5) - 0.636_619_772_367_581_4) < 1e-14)
        #expect(abs(Lanczos.cardinalSine(2.5) - 0.127_323_954_473_516_3) < 1e-14)
        #expect(Lanczos.cardinalSine(0) == 1 && abs(Lanczos.cardinalSine(2)) < 1e-14)
        for (from, to) in [(136, 44), (128, 92), (160, 40), (10, 20), (1, 3), (5, 1)] {
            for taps in Lanczos.taps(from: from, to: to) {
                #expect(taps.start >= 0 && taps.start + taps.weights.count <= from && abs(taps.weights.reduce(0, +) - 1) < 1e-5)
            }
        }
    }
}
