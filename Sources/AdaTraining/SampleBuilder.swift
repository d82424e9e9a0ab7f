import AdaImages
import AdaLLaVA
import Foundation

/// Makes samples that the model takes from records of a data set: tokenizes, masks labels, decodes and prepares images, draws budgets.
package struct SampleBuilder: Sendable {
    let dataset: InstructionDataset
    let tokenizer: any Tokenizer
    let assembly: SampleAssembly
    /// `nil` for text models.
    let imageProcessor: CLIPImageProcessor?
    let aspect: CLIPImageProcessor.AspectMode
    /// `nil` for models that are not adaptive.
    let units: BudgetUnits?
    let budgets: Recipe.TrainBudgets
    let seed: UInt64
    /// Given, samples are images with the labels of their regions, and have no text.
    var regions: RegionVocabulary?
    /// Given, it computes the features, which take the place of pixels.
    var frozenTower: FrozenTower?
    /// Share of samples that get the least budget.
    var floorShare = 0.0
    /// Share of the others that get everything.
    var fullShare = 0.0
    /// Whether each question of a conversation is trained as if it were alone.
    var independentTurns = false
    /// Whether such questions are answered under one plan, instead of one of them under its own.
    var sharesPlan = false
    /// Whether only questions of one task share it.
    var packsByTask = false
    /// Whether samples with text also have the names of their image rows' content, if their records have regions.
    var namesRegions = false
    /// Told of images that were read although they are damaged.
    var damaged = DamagedImages()

    /// One sample of one pass over the data. The same numbers give the same sample.
    /// - Parameters:
    ///   - number: which record.
    ///   - epoch: which pass: budgets and noise differ from pass to pass.
    /// - Throws: ``TrainingError/sample(id:index:file:reason:)``
    package func sample(_ number: Int, epoch: Int) throws -> TrainingSample {
        let record = try dataset.record(number)
        func bad(_ reason: String) -> TrainingError {
            .sample(id: record.id, index: number, file: dataset.file(of: number), reason: reason)
        }
        if let regions { return try labelledImage(number, record, regions, bad) }
        let isMultimodal = !record.images.isEmpty && imageProcessor != nil
        if !record.images.isEmpty, imageProcessor == nil { throw bad("it has an image, but the model has no vision tower") }
        var generator = SplitMix64(seed: seed ^ (UInt64(number) &* 0x9E37_79B9_7F4A_7C15) ^ (UInt64(epoch) &* 0xD1B5_4A32_D192_ED03))
        let units = units.map { GrantedUnits($0, budgets, floorShare: floorShare, fullShare: fullShare, &generator) }
        var conversations = [record.turns]
        if independentTurns {
            conversations = SampleBuilder.questions(of: record.turns)
            // Under a plan the common prefix of several questions depends on the plan.
            if let units, units.leaveChoice {
                let drawn = generator.index(below: conversations.count)
                let order = Array(drawn ..< conversations.count) + Array(0 ..< drawn)
                let together = !sharesPlan ? [drawn] : packsByTask ? order.filter { record.task(of: $0) == record.task(of: drawn) } : order
                conversations = together.map { conversations[$0] }
            }
        }
        let pixels = isMultimodal ? try record.images.map { try input($0, of: number, bad) } : []
        let samples = try conversations.map { try text($0, record, isMultimodal, pixels, bad) }
        var sample = samples[0]
        if samples.count > 1 {
            guard let packed = SampleAssembly.sample(of: samples) else { throw bad("its questions do not begin alike") }
            sample = packed
        }
        if let units { (sample.units, sample.latency) = (units.count, units.latency) }
        sample.seed = generator.next()
        sample.name = record.id
        if namesRegions { sample.regionTokens = try regionTokens(record, number, bad) }
        return sample
    }

    /// A conversation's questions with their answers, each as a conversation of its own, about the first turn's images.
    static func questions(of turns: [String]) -> [[String]] {
        let mark = ChatMessage.imageMark
        let isAboutImage = turns.first?.contains(mark) ?? false
        return stride(from: 0, to: turns.count - 1, by: 2).map { first in
            let question = turns[first]
            return [isAboutImage && !question.contains(mark) ? mark + "\n" + question : question, turns[first + 1]]
        }
    }

    /// A conversation with its images: tokens and labels.
    private func text(
        _ turns: [String], _ record: InstructionRecord, _ isMultimodal: Bool, _ pixels: [[Float]], _ bad: (String) -> TrainingError
    ) throws -> TrainingSample {
        var conversation = TrainingConversation(turns: turns)
        if isMultimodal { conversation = conversation.withImagesInFront }
        let labels: TrainingConversation.Labels
        do {
            labels = try conversation.labels(with: tokenizer, hasImage: isMultimodal, maximumLength: assembly.maximumLength)
        } catch let error as any AdaLLaVAError {
            throw bad(error.description)
        }
        if labels.lengthMismatch {
            throw bad("its rounds, tokenized one by one, do not add up to the whole conversation, so answers cannot be separated from questions")
        }
        let marks = labels.inputIDs.count { $0 == PromptEncoder.imageToken }
        guard marks == (isMultimodal ? record.images.count : 0) else {
            throw bad("\(marks) <image> marks for \(record.images.count) images")
        }
        let sample = assembly.sample(ids: labels.inputIDs, labels: labels.labels, pixels: pixels)
        guard sample.scored > 0 else { throw bad("no token of it is scored: its answers are empty, or beyond model_max_length") }
        return sample
    }

    /// The tokens that name the content of an image's rows; ignored labels for each row if the record has no regions, or several images.
    private func regionTokens(_ record: InstructionRecord, _ number: Int, _ bad: (String) -> TrainingError) throws -> [Int32] {
        guard imageProcessor != nil, !record.images.isEmpty else { return [] }
        guard record.images.count == 1, !record.regions.isEmpty, let grid = labelGrid else {
            let count = record.images.count * assembly.rowsPerImage * RegionVocabulary.namesPerRow
            return [Int32](repeating: Int32(TrainingConversation.ignoredLabel), count: count)
        }
        return names(record.regions, of: try open(record.images[0], of: number, bad), grid: grid)
    }

    private func names(_ regions: [ImageRegion], of image: RGBImage, grid: Int) -> [Int32] {
        RegionVocabulary.tokens(regions, width: image.width, height: image.height, aspect: aspect, grid: grid) { name in
            tokenizer.encode(name).filter { $0 != tokenizer.bosToken }
        }
    }

    /// An image and the labels of its patches.
    private func labelledImage(
        _ number: Int, _ record: InstructionRecord, _ regions: RegionVocabulary, _ bad: (String) -> TrainingError
    ) throws -> TrainingSample {
        guard let imageProcessor else { throw bad("region labels teach a vision tower, but the model has none") }
        guard record.images.count == 1 else { throw bad("expected one image with its regions, found \(record.images.count) images") }
        guard let grid = labelGrid else { throw bad("the tower's features are not one row for each patch of a square") }
        let image = try open(record.images[0], of: number, bad)
        let path = dataset.url(record.images[0], of: number).path
        let pixels = try frozenTower?.features(of: path, aspect: aspect) { image } ?? imageProcessor(image, mode: aspect)
        var sample = TrainingSample(tokens: [], labels: [], pixels: pixels, images: 1)
        sample.regionLabels = regions.labels(record.regions, width: image.width, height: image.height, aspect: aspect, grid: grid)
        sample.regionTokens = names(record.regions, of: image, grid: grid)
        sample.name = record.id
        return sample
    }

    /// Patches of a side, if rows of features are patches of a square and nothing else.
    private var labelGrid: Int? {
        let side = Int(Double(assembly.rowsPerImage).squareRoot().rounded())
        return side > 0 && side * side == assembly.rowsPerImage ? side : nil
    }

    /// The model's input for an image: pixels for its tower, or the features of a frozen one.
    private func input(_ image: String, of number: Int, _ bad: (String) -> TrainingError) throws -> [Float] {
        if let frozenTower {
            return try frozenTower.features(of: dataset.url(image, of: number).path, aspect: aspect) { try open(image, of: number, bad) }
        }
        let decoded = try open(image, of: number, bad)
        return imageProcessor?(decoded, mode: aspect) ?? []
    }

    private func open(_ image: String, of number: Int, _ bad: (String) -> TrainingError) throws -> RGBImage {
        do {
            let read = try ImageSource.file(dataset.url(image, of: number).path).image(tolerance: .asPillow)
            damaged.note(read.damage)
            return read.image
        } catch let error as any AdaLLaVAError {
            throw bad("its image: \(error.description)")
        }
    }
}

/// Optional units that a sample's budget grants.
private struct GrantedUnits {
    /// Optional units.
    let count: Int
    /// The latency embedding's value for them.
    let latency: Float
    /// Whether a plan says which units run: not where none do, or all.
    let leaveChoice: Bool

    init(_ units: BudgetUnits, _ budgets: Recipe.TrainBudgets, floorShare: Double, fullShare: Double, _ generator: inout SplitMix64) {
        // A fraction that is a whole number of units of the whole, as the reference draws it; its product may round below that number.
        var granted = budgets == .full ? units.total : units.prefix + generator.index(below: units.total - units.prefix + 1)
        if fullShare > 0, generator.unit() < fullShare { granted = units.total }
        if floorShare > 0, generator.unit() < floorShare { granted = units.prefix }
        count = units.granted(fraction: Float(granted) / Float(units.total))
        latency = units.normalized(count)
        leaveChoice = count > 0 && count < units.total - units.prefix
    }
}
