import AdaImages
import AdaLLaVA

/// A box in an image and its labels, from `"regions"` of a record: `{"box": [x0, y0, x1, y1], "labels": {"thing": "dog"}}`.
package struct ImageRegion: Sendable, Equatable {
    /// Left, top, right and bottom edge in pixels of the image.
    package var box: [Double]
    /// A class for each kind of label that the region has: a thing, a colour, a letter.
    package var labels: [String: String]

    package init(box: [Double], labels: [String: String]) {
        (self.box, self.labels) = (box, labels)
    }
}

/// The kinds of labels that a data set's regions have, with their classes; and how they become targets for rows of features.
///
/// Training a small vision tower on labelled regions, before a language model learns to name them, needs a fraction of the samples that the
/// language loss needs: every patch has a label, not only the few things that a question asks about.
package struct RegionVocabulary: Sendable, Equatable {
    package struct Kind: Sendable, Equatable {
        package let name: String
        /// Sorted; class 0, "nothing there", comes before them.
        package let classes: [String]
    }

    /// Sorted by name.
    package let kinds: [Kind]
    private let numbers: [[String: Int32]]

    /// Each patch is labelled at these points of its width, half way down, so that things narrower than a patch are found.
    static let points = [0.25, 0.75]

    package init(kinds: [String: Set<String>]) {
        self.kinds = kinds.sorted { $0.key < $1.key }.map { Kind(name: $0.key, classes: $0.value.sorted()) }
        numbers = self.kinds.map { kind in
            Dictionary(uniqueKeysWithValues: kind.classes.enumerated().map { ($1, Int32($0 + 1)) })
        }
    }

    /// Collects the labels of a whole data set.
    /// - Throws: ``TrainingError``; a data set without any regions is an error.
    package init(_ dataset: InstructionDataset) throws {
        var found: [String: Set<String>] = [:]
        for number in 0 ..< dataset.count {
            for region in try dataset.record(number).regions {
                for (kind, label) in region.labels { found[kind, default: []].insert(label) }
            }
        }
        guard !found.isEmpty else {
            throw TrainingError.recipe(
                field: "objective", expected: "samples with `regions` for region_labels (adallava data scenes --regions makes some)",
                found: "none in \(dataset.count) samples", file: "the recipe")
        }
        self.init(kinds: found)
    }

    /// Classes of each slot: a slot is a kind at one point of a patch.
    package var slotClasses: [Int] { kinds.flatMap { kind in RegionVocabulary.points.map { _ in kind.classes.count + 1 } } }

    /// The targets of one image, `[rows, slots]`, patches row by row. Where regions overlap, the later one counts.
    /// - Parameters:
    ///   - grid: patches of a side.
    ///   - width: of the image, in pixels, before it is squared as `aspect` says.
    package func labels(_ regions: [ImageRegion], width: Int, height: Int, aspect: CLIPImageProcessor.AspectMode, grid: Int) -> [Int32] {
        let side = Double(aspect == .pad ? max(width, height) : min(width, height))
        let (left, top) = ((Double(width) - side) / 2, (Double(height) - side) / 2)
        let slots = kinds.count * RegionVocabulary.points.count
        var labels = [Int32](repeating: 0, count: grid * grid * slots)
        for region in regions where region.box.count == 4 {
            let classes = zip(kinds, numbers).map { kind, numbers in region.labels[kind.name].flatMap { numbers[$0] } }
            for row in 0 ..< grid {
                let y = top + (Double(row) + 0.5) / Double(grid) * side
                guard y >= region.box[1], y < region.box[3] else { continue }
                for column in 0 ..< grid {
                    for (place, point) in RegionVocabulary.points.enumerated() {
                        let x = left + (Double(column) + point) / Double(grid) * side
                        guard x >= region.box[0], x < region.box[2] else { continue }
                        let first = (row * grid + column) * slots
                        for (kind, number) in classes.enumerated() {
                            if let number { labels[first + kind * RegionVocabulary.points.count + place] = number }
                        }
                    }
                }
            }
        }
        return labels
    }
}

extension RegionVocabulary {
    /// The fraction of labels that were recognized, by kind, and `name` for the words of things.
    /// - Parameter counts: for each slot, then for names: labels that something is there, and how many were recognized.
    func shares(_ counts: [Double]) -> [String: Double] {
        var shares: [String: Double] = [:]
        let width = 2 * RegionVocabulary.points.count
        func share(_ range: Range<Int>) -> Double? {
            let present = range.filter { $0 % 2 == 0 }.reduce(0.0) { $0 + counts[$1] }
            return present > 0 ? range.filter { $0 % 2 == 1 }.reduce(0.0) { $0 + counts[$1] } / present : nil
        }
        guard counts.count == kinds.count * width + 2 else { return shares }
        for (index, kind) in kinds.enumerated() { shares[kind.name] = share(index * width ..< (index + 1) * width) }
        shares["name"] = share(counts.count - 2 ..< counts.count)
        return shares
    }

    /// Maximum number of tokens that name a patch's content.
    static let namesPerRow = 4

    /// The tokens that name each patch's content, `[rows, namesPerRow]`: those of the `thing` and the `color` at its centre, and of the
    /// letters (`character`) at the points where patches are labelled. A printed word is wider than a patch, so patches are not scored on
    /// whole words.
    /// - Parameter encode: a name's own tokens.
    static func tokens(
        _ regions: [ImageRegion], width: Int, height: Int, aspect: CLIPImageProcessor.AspectMode, grid: Int, tokens encode: (String) -> [Int]
    ) -> [Int32] {
        let side = Double(aspect == .pad ? max(width, height) : min(width, height))
        let (left, top) = ((Double(width) - side) / 2, (Double(height) - side) / 2)
        var names = [[Int]](repeating: [], count: grid * grid)
        for region in regions where region.box.count == 4 {
            let isLetter = region.labels["character"] != nil
            // A letter may be spelled with a space's token before it.
            let mine = region.labels["character"].map { Array(encode($0).suffix(1)) }
                ?? [region.labels["thing"], region.labels["color"]].compactMap(\.self).flatMap(encode)
            for place in 0 ..< grid * grid {
                let y = top + (Double(place / grid) + 0.5) / Double(grid) * side
                guard y >= region.box[1], y < region.box[3] else { continue }
                let covered = (isLetter ? points : [0.5]).filter { point in
                    let x = left + (Double(place % grid) + point) / Double(grid) * side
                    return x >= region.box[0] && x < region.box[2]
                }
                guard !covered.isEmpty else { continue }
                if !isLetter { names[place] = [] }
                for token in mine where !names[place].contains(token) { names[place].append(token) }
            }
        }
        return names.flatMap { names in
            let kept = names.prefix(namesPerRow).map { Int32($0) }
            return kept + Array(repeating: Int32(TrainingConversation.ignoredLabel), count: namesPerRow - kept.count)
        }
    }
}

extension ImageRegion {
    /// Reads a record's `regions`.
    /// - Returns: `nil` for anything else than a list of boxes with labels.
    static func read(_ json: JSONValue) -> [ImageRegion]? {
        guard case .array(let items) = json else { return nil }
        var regions: [ImageRegion] = []
        for item in items {
            guard case .array(let corners)? = item["box"], corners.count == 4, case .object(let members)? = item["labels"] else { return nil }
            let box = corners.compactMap { corner -> Double? in
                switch corner {
                case .integer(let value): Double(value)
                case .number(let value): value.isFinite ? value : nil
                default: nil
                }
            }
            let labels = members.compactMapValues { if case .string(let text) = $0 { text } else { nil } }
            guard box.count == 4, labels.count == members.count else { return nil }
            regions.append(ImageRegion(box: box, labels: labels))
        }
        return regions
    }
}
