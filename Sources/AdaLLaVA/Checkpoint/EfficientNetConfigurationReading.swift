/// An EfficientNet-Lite in `config.json` and in GGUF metadata.
///
/// `{"model_type": "efficientnet_lite", "variant": "lite0", "image_size": 224, "feature_maps": ["head", "stride16", "stride8"]}`; instead of
/// `variant`, `stem_channels`, `head_channels` and `blocks_args` describe any other network in the PyTorch package's own notation, such as
/// `r2_k5_s22_e6_i24_o40`: two blocks with 5 x 5 filters, the first with stride 2, expanding 24 channels six times and giving 40.
extension EfficientNetConfiguration {
    /// The largest image, and the most values of one map, that are believed.
    private static let (imageSizes, largestMap) = (32...2048, 1 << 28)
    private static let channels = 1...16384

    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    init(_ fields: ConfigurationFields) throws {
        if let name = try fields.optionalString("variant") {
            guard !fields.has("blocks_args") else {
                throw fields.invalid("blocks_args", expected: "nothing beside a variant")
            }
            try self.init(variant: name, file: fields.file)
        } else {
            self.init(
                imageSize: 224, stemChannels: try fields.integer("stem_channels", in: Self.channels, missing: nil),
                headChannels: try fields.integer("head_channels", in: Self.channels, missing: nil),
                stages: try Self.stages(Self.strings(fields, "blocks_args") ?? [], file: fields.file))
        }
        imageSize = try fields.integer("image_size", in: Self.imageSizes, missing: imageSize)
        if let names = try Self.strings(fields, "feature_maps") { featureMaps = try Self.featureMaps(names, file: fields.file) }
        try validate(file: fields.file)
    }

    /// Reads the fields that ``ggufMetadata`` writes.
    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    init(_ metadata: GGUFMetadata) throws {
        func integer(_ key: String, in range: ClosedRange<Int>) throws -> Int {
            guard let value = try metadata.int(key), range.contains(value) else {
                throw CheckpointError.configuration(
                    field: key, expected: "a whole number from \(range.lowerBound) to \(range.upperBound)",
                    found: metadata[key]?.summary ?? "nothing", file: metadata.location)
            }
            return value
        }
        self.init(
            imageSize: try integer("clip.vision.image_size", in: Self.imageSizes),
            stemChannels: try integer("adallava.vision.stem_channels", in: Self.channels),
            headChannels: try integer("adallava.vision.head_channels", in: Self.channels),
            stages: try Self.stages(metadata.strings("adallava.vision.blocks_args") ?? [], file: metadata.location),
            featureMaps: try Self.featureMaps(metadata.strings("adallava.vision.feature_maps") ?? [], file: metadata.location))
        try validate(file: metadata.location)
    }

    /// The keys that describe the network in a GGUF file of ours; the image size is among those that every tower has.
    var ggufMetadata: [(key: String, value: GGUFValue)] {
        [
            ("adallava.vision.model_type", .string(Self.modelType)),
            ("adallava.vision.stem_channels", .uint32(UInt32(clamping: stemChannels))),
            ("adallava.vision.head_channels", .uint32(UInt32(clamping: headChannels))),
            ("adallava.vision.blocks_args", .array(GGUFArray(stages.map(\.notation)))),
            ("adallava.vision.feature_maps", .array(GGUFArray(featureMaps.map(\.rawValue)))),
        ]
    }

    /// The `config.json` of a tower's folder.
    var jsonText: String {
        let shape = variant.map { ["  \"variant\": \(quoted($0))"] } ?? [
            "  \"stem_channels\": \(stemChannels)", "  \"head_channels\": \(headChannels)",
            "  \"blocks_args\": [\(stages.map { quoted($0.notation) }.joined(separator: ", "))]",
        ]
        let lines = ["  \"model_type\": \(quoted(Self.modelType))"] + shape + [
            "  \"image_size\": \(imageSize)", "  \"feature_maps\": [\(featureMaps.map { quoted($0.rawValue) }.joined(separator: ", "))]",
        ]
        return "{\n\(lines.joined(separator: ",\n"))\n}\n"
    }

    // MARK: - Parts

    private static func strings(_ fields: ConfigurationFields, _ name: String) throws -> [String]? {
        guard let value = fields.raw(name) else { return nil }
        guard case .array(let elements) = value, elements.count <= 64 else { throw fields.invalid(name, expected: "a list of strings") }
        return try elements.map {
            guard case .string(let text) = $0 else { throw fields.invalid(name, expected: "a list of strings") }
            return text
        }
    }

    private static func featureMaps(_ names: [String], file: String) throws -> [FeatureMap] {
        let maps = names.compactMap(FeatureMap.init)
        guard !maps.isEmpty, maps.count == names.count, Set(maps).count == maps.count else {
            throw CheckpointError.configuration(
                field: "feature_maps", expected: "some of \(FeatureMap.allCases.map(\.rawValue).joined(separator: ", ")), each once",
                found: names.isEmpty ? "none" : names.prefix(8).map { String($0.prefix(40)) }.joined(separator: ", "), file: file)
        }
        return maps
    }

    private static func stages(_ notations: [String], file: String) throws -> [Stage] {
        try notations.map { notation in
            guard let stage = Stage(notation: notation) else {
                throw CheckpointError.configuration(
                    field: "blocks_args", expected: "stages such as r2_k5_s22_e6_i24_o40, without squeeze-and-excitation",
                    found: String(notation.prefix(60)), file: file)
            }
            return stage
        }
    }

    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    func validate(file: String) throws {
        func invalid(_ field: String, _ expected: String, _ found: String) -> CheckpointError {
            .configuration(field: field, expected: expected, found: found, file: file)
        }
        // Checked before anything is computed from them.
        let (blockCount, halvings) = (stages.reduce(0) { $0 + $1.repeats }, stages.count { $0.stride == 2 })
        guard (1...1024).contains(blockCount), halvings <= 5 else {
            throw invalid("blocks_args", "1 to 1024 blocks, at most 5 stages of stride 2", "\(blockCount) blocks, \(halvings) stages of stride 2")
        }
        var previous = stemChannels
        for stage in stages {
            guard stage.inputs == previous else {
                throw invalid("blocks_args", "a stage with the \(previous) channels of the layer before it", stage.notation)
            }
            previous = stage.outputs
        }
        var largest = stemSide * stemSide * stemChannels
        for block in blocks { largest = max(largest, block.side * block.side * block.expanded) }
        guard largest <= Self.largestMap else { throw invalid("image_size", "maps of at most \(Self.largestMap) values", "\(largest)") }
        for map in featureMaps where map.stride != nil && map != .color8 && blockIndex(of: map) == nil {
            throw invalid("feature_maps", "maps that the network has; its last cells are \(totalStride) pixels apart", map.rawValue)
        }
        guard ConfigurationLimits.hidden.contains(featureWidth) else {
            throw invalid("feature_maps", "at most \(ConfigurationLimits.hidden.upperBound) values a row", "\(featureWidth)")
        }
    }
}

extension EfficientNetConfiguration.Stage {
    /// The PyTorch package's notation.
    var notation: String { "r\(repeats)_k\(kernelSize)_s\(stride)\(stride)_e\(expandRatio)_i\(inputs)_o\(outputs)" }

    /// Reads the PyTorch package's notation; `nil` for anything but the six parts, each once and in range.
    init?(notation: String) {
        var values: [Character: Int] = [:]
        for part in notation.split(separator: "_", omittingEmptySubsequences: false) {
            guard let letter = part.first, let value = Int(part.dropFirst()), values.updateValue(value, forKey: letter) == nil else { return nil }
        }
        let channels = 1...16384
        guard values.count == 6, let repeats = values["r"], let kernel = values["k"], let strides = values["s"], let expand = values["e"],
            let inputs = values["i"], let outputs = values["o"],
            (1...256).contains(repeats), [3, 5, 7].contains(kernel), [1, 2, 11, 22].contains(strides), (1...16).contains(expand),
            channels.contains(inputs), channels.contains(outputs)
        else { return nil }
        self.init(
            repeats: repeats, kernelSize: kernel, stride: strides % 10, expandRatio: expand, inputs: inputs, outputs: outputs)
    }
}
