import AdaLLaVA
import Foundation
import Yams

extension Recipe {
    /// Reads a recipe, a YAML mapping of ``RecipeFields``; relative paths in it are relative to its folder.
    /// - Parameter changes: `key=value` pairs that replace fields; their paths are relative to the working folder.
    /// - Throws: ``TrainingError/recipe(field:expected:found:file:)`` for fields that are unknown, given twice, missing or out of range;
    ///   ``CheckpointError`` for a file that cannot be read.
    package init(contentsOf url: URL, changes: [String] = []) throws {
        let file = try MappedFile(contentsOf: url, needed: "the recipe to train by")
        let text = withExtendedLifetime(file) { String(decoding: file.bytes, as: UTF8.self) }
        try self.init(yaml: text, file: url.path, folder: url.deletingLastPathComponent(), changes: changes)
    }

    init(yaml text: String, file: String, folder: URL, changes: [String] = []) throws {
        self.init()
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch {
            throw CheckpointError.malformed(file: file, reason: "not YAML: \(error)")
        }
        guard let mapping = root?.mapping else {
            throw TrainingError.recipe(field: "the recipe", expected: "fields as `name: value`", found: "something else", file: file)
        }
        var seen: Set<String> = []
        for (key, node) in mapping {
            let place = "\(file)\(key.mark.map { ":\($0.line)" } ?? "")"
            let name = key.scalar?.string ?? ""
            guard seen.insert(name).inserted else {
                throw TrainingError.recipe(field: name, expected: "the field once", found: "it twice", file: place)
            }
            try set(name, RecipeValue(node), file: place)
        }
        resolvePaths(in: folder)
        let here = URL(systemPath: ".")
        for change in changes {
            guard let equals = change.firstIndex(of: "=") else {
                throw TrainingError.recipe(field: "--set \(change)", expected: "key=value", found: "no =", file: "the command line")
            }
            let name = String(change[..<equals]).trimmingCharacters(in: .whitespaces)
            let value = String(change[change.index(after: equals)...])
            // Read as YAML, so that lists work here too.
            let node = (try? Yams.compose(yaml: value)) ?? nil
            try set(name, node.map { RecipeValue($0) } ?? .scalar(value), file: "--set \(change)")
        }
        resolvePaths(in: here)
        try validate(file: file)
    }

    private mutating func set(_ name: String, _ value: RecipeValue, file: String) throws {
        guard let field = RecipeFields.all.first(where: { $0.name == name }) else {
            throw TrainingError.recipe(
                field: name, expected: "a field that `adallava train --help-recipe` lists\(RecipeFields.suggestion(for: name))",
                found: "this one", file: file)
        }
        // A field that is named without a value is as if it were not named.
        if value.isNull { return }
        guard field.set(&self, value) else {
            throw TrainingError.recipe(field: name, expected: field.expected, found: value.summary, file: file)
        }
    }

    private mutating func resolvePaths(in folder: URL) {
        func resolved(_ path: String) -> String {
            if path.isEmpty || path.hasPrefix("/") { return path }
            if path.hasPrefix("~") { return NSString(string: path).expandingTildeInPath }
            return folder.appendingPathComponent(path).standardizedFileURL.path
        }
        modelNameOrPath = resolved(modelNameOrPath)
        dataPath = dataPath.map(resolved)
        imageFolder = resolved(imageFolder)
        outputDir = resolved(outputDir)
        featuresDir = resolved(featuresDir)
    }

    private func validate(file: String) throws {
        for (field, value) in [("model_name_or_path", modelNameOrPath), ("data_path", dataPath.first ?? ""), ("output_dir", outputDir)] where value.isEmpty {
            throw TrainingError.recipe(field: field, expected: "a value", found: "none", file: file)
        }
        if tuneMMMLPAdapter, loraR > 0 {
            throw TrainingError.recipe(
                field: "lora_r", expected: "0 with tune_mm_mlp_adapter, which trains the projector alone", found: "\(loraR)", file: file)
        }
    }
}

extension RecipeValue {
    init(_ node: Node) {
        switch node {
        case .scalar(let scalar): self = .scalar(scalar.string)
        case .sequence(let sequence): self = .list(sequence.map { $0.scalar?.string ?? "" })
        default: self = .list([])
        }
    }
}

extension RecipeFields {
    /// The text of `adallava train --help-recipe`: a recipe with every field explained.
    package static var help: String {
        all.map { "# \($0.help)\n# \($0.expected); without it: \($0.missing)\n\($0.name):\n" }.joined(separator: "\n")
    }

    /// The nearest field's name, if one is near.
    static func suggestion(for name: String) -> String {
        let nearest = all.map { (name: $0.name, distance: distance(Array($0.name), Array(name))) }.min { $0.distance < $1.distance }
        guard let nearest, nearest.distance <= 3 else { return "" }
        return " (\(nearest.name)?)"
    }

    /// Levenshtein's.
    private static func distance(_ a: [Character], _ b: [Character]) -> Int {
        var row = Array(0 ... b.count)
        for (i, x) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let value = x == y ? diagonal : min(diagonal, row[j], row[j + 1]) + 1
                diagonal = row[j + 1]
                row[j + 1] = value
            }
        }
        return row[b.count]
    }
}
