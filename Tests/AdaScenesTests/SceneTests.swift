import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaScenes

private let generator = Result { try SceneGenerator(seed: 7) }

@Suite struct SceneTests {
    @Test("same seed and index give the same scene") func sameSeedAndIndexGiveTheSameScene() throws {
        // A difference means that a training run cannot be repeated, or that sets made in parallel depend on timing.
        let first = try generator.get()
        let second = try SceneGenerator(seed: 7)
        let other = try SceneGenerator(seed: 8)
        for index in [3, 0, 41] { #expect(try first.scene(index) == second.scene(index)) }
        #expect(try first.scene(3) != first.scene(4))
        #expect(try first.scene(3) != other.scene(3))
    }

    @Test("random numbers are pinned") func randomNumbersArePinned() {
        // A change means that every set made so far changes with the next release.
        var random = SceneRandom(seed: 1, index: 2)
        var neighbour = SceneRandom(seed: 2, index: 1)
        let numbers = (0..<3).map { _ in random.next() }
        // From SplitMix64's definition, computed apart from this code.
        #expect(numbers == [0xE68E_6FC0_1DF0_8360, 0x47B7_6C95_4434_F7E4, 0x01EF_44FB_588B_A575])
        #expect(numbers != (0..<3).map { _ in neighbour.next() })
        let bells = (0..<4000).map { _ in random.bell() }
        let mean = bells.reduce(0, +) / 4000
        let deviation = (bells.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 4000).squareRoot()
        #expect(abs(mean) < 0.06 && abs(deviation - 1) < 0.06)
        #expect(Set((0..<200).map { _ in random.below(5) }) == Set(0..<5))
        #expect(random.shuffled(Array(0..<20)).sorted() == Array(0..<20))
    }

    @Test("every thing is drawn and seen") func everyThingIsDrawnAndSeen() throws {
        // A failure means that something the questions ask about is cut off or hidden under a neighbour.
        let generator = try generator.get()
        for index in 0..<400 {
            var random = SceneRandom(seed: 5, index: index)
            let layout = SceneLayout(random: &random)
            let placed = generator.renderer.place(layout)
            for (number, item) in placed.enumerated() {
                // Of a wide word the plate's margin and a little of the first letter may lie outside or under a neighbour, as in the
                // reference script's pictures.
                let slack = item.thing.word == nil ? 8 : 12
                #expect(item.left >= -slack && item.left + item.tile.width <= 112 + slack, "scene \(index): \(item.thing)")
                #expect(item.top >= 0 && item.top + item.tile.height <= 112, "scene \(index): \(item.thing)")
                #expect(max(item.tile.width, item.tile.height) >= 24, "scene \(index): \(item.thing)")
                if let word = item.thing.word { #expect(item.tile.width >= 7 * word.count, "scene \(index): \(word)") }
                for other in placed[(number + 1)...] {
                    let overlapX = min(item.left + item.tile.width, other.left + other.tile.width) - max(item.left, other.left)
                    let overlapY = min(item.top + item.tile.height, other.top + other.tile.height) - max(item.top, other.top)
                    let widest = item.thing.word != nil && other.thing.word != nil ? 6 : slack + 10
                    #expect(min(overlapX, overlapY) <= widest, "scene \(index): \(item.thing) and \(other.thing)")
                }
            }
        }
    }

    @Test("every pictogram has its picture") func everyPictogramHasItsPicture() throws {
        // A failure means that a name in the catalogue is drawn as nothing, or as another name's picture.
        let pictograms = try generator.get().renderer.fonts.pictograms
        #expect(pictograms.count == Pictogram.all.count)
        #expect(Set(Pictogram.all.map(\.name)).count == Pictogram.all.count)
        #expect(Set(Pictogram.all.map(\.character)).count == Pictogram.all.count)
        #expect(Pictogram.classic.count == 52 && Pictogram.all.count >= 130)
        let names = Set(Pictogram.all.map(\.name))
        for group in Pictogram.kinGroups { #expect(group.isSubset(of: names), "\(group.subtracting(names))") }
        let taken = Set(SceneShape.allCases.map(\.rawValue) + SceneColour.allCases.map(\.rawValue) + ["shape", "word", "thing", "animal"])
        #expect(names.isDisjoint(with: taken))
        for (pictogram, tile) in pictograms {
            let visible = tile.pixels.count { $0.w > 0.5 }
            #expect(visible > 1500, "\(pictogram.name): \(visible)")
        }
    }

    @Test("missing fonts name their package") func missingFontsNameTheirPackage() {
        // A failure means that a fresh machine gives no hint what to install.
        #expect {
            try SceneFonts(folders: ["/nonexistent"], pictureSize: 112)
        } throws: {
            "\($0)".contains("apt install fonts-noto-color-emoji") && ($0 as? SceneError)?.category == .missingInput
        }
        #expect(throws: SceneError.self) { try SceneGenerator(seed: 1, size: 20) }
    }
}
