import AdaLLaVA
import Foundation

/// One sample of LLaVA's instruction format, as it is written.
package struct InstructionRecord: Sendable, Equatable {
    package var id: String
    /// Paths of the images, relative to the image folder.
    package var images: [String]
    /// Turns in order, a person's first.
    package var turns: [String]
    /// Labelled regions of the image, for the objective `region_labels`.
    package var regions: [ImageRegion] = []
    /// The task of each question (`tasks`, or `task` if there is one); empty if the file has none.
    package var tasks: [String] = []

    /// The task of question `index`.
    func task(of index: Int) -> String? { tasks.indices.contains(index) ? tasks[index] : nil }
}

/// The samples of one or several instruction files, numbered through.
package struct InstructionDataset: Sendable {
    struct Part: Sendable {
        let index: InstructionIndex
        /// The folder that its image paths are relative to.
        let imageFolder: URL
        let first: Int
    }

    private let parts: [Part]
    package let count: Int

    /// - Parameter imageFolder: the folder that image paths are relative to; `nil`: each file's own folder.
    /// - Throws: ``CheckpointError``
    package init(files: [URL], imageFolder: URL?) throws {
        var parts: [Part] = []
        var count = 0
        for file in files {
            let index = try InstructionIndex(contentsOf: file)
            parts.append(Part(index: index, imageFolder: imageFolder ?? file.deletingLastPathComponent(), first: count))
            count += index.entries.count
        }
        (self.parts, self.count) = (parts, count)
    }

    private func part(of number: Int) -> Part {
        // Parts are few.
        parts.last { $0.first <= number } ?? parts[0]
    }

    private func entry(_ number: Int) -> InstructionIndex.Entry {
        let part = part(of: number)
        return part.index.entries[number - part.first]
    }

    /// Approximate length of a sample, and whether it has an image; batches are grouped by both.
    func length(_ number: Int) -> (words: Int, hasImage: Bool) {
        let entry = entry(number)
        return (entry.words, entry.hasImage)
    }

    /// The file of an image of a sample.
    func url(_ image: String, of number: Int) -> URL {
        image.hasPrefix("/") ? URL(fileURLWithPath: image) : part(of: number).imageFolder.appendingPathComponent(image)
    }

    /// The file that holds a sample, for messages.
    func file(of number: Int) -> String { part(of: number).index.file.path }

    /// Reads one sample.
    /// - Throws: ``TrainingError/sample(id:index:file:reason:)`` if it is not valid JSON, or not LLaVA's format.
    package func record(_ number: Int) throws -> InstructionRecord {
        let part = part(of: number)
        let place = number - part.first
        let entry = part.index.entries[place]
        func bad(_ id: String, _ reason: String) -> TrainingError {
            .sample(id: id, index: place, file: part.index.file.path, reason: reason)
        }
        let json: JSONValue
        do {
            json = try withExtendedLifetime(part.index.file) { try JSONReader.parse(part.index.bytes(entry), file: "the sample") }
        } catch let error as CheckpointError {
            throw bad("unknown", error.description)
        }
        let id: String =
            switch json["id"] {
            case .string(let text): text
            case .integer(let number): "\(number)"
            default: "#\(place)"
            }
        var images: [String] = []
        switch json["image"] {
        case nil: break
        case .string(let path): images = [path]
        case .array(let paths):
            for path in paths {
                guard case .string(let path) = path else { throw bad(id, "image: expected paths, found \(path.summary)") }
                images.append(path)
            }
        case let other?: throw bad(id, "image: expected a path, found \(other.summary)")
        }
        guard case .array(let conversation)? = json["conversations"], !conversation.isEmpty else {
            throw bad(id, "conversations: expected a list of turns, found \(json["conversations"]?.summary ?? "nothing")")
        }
        var turns: [String] = []
        for (position, turn) in conversation.enumerated() {
            guard case .string(let speaker)? = turn["from"], case .string(let value)? = turn["value"] else {
                throw bad(id, "turn \(position + 1): expected `from` and `value`, found \(turn.summary)")
            }
            // LLaVA drops a first turn that is not a person's.
            if position == 0, speaker != "human", speaker != "user" { continue }
            let expected = turns.count % 2 == 0 ? ["human", "user"] : ["gpt", "assistant"]
            guard expected.contains(speaker) else {
                throw bad(id, "turn \(position + 1) is from `\(speaker.prefix(40))`, expected `\(expected[0])`: turns must alternate")
            }
            turns.append(value)
        }
        guard turns.count >= 2 else { throw bad(id, "conversations: expected a question and an answer, found \(turns.count) turns") }
        var record = InstructionRecord(id: id, images: images, turns: turns)
        if let regions = json["regions"] {
            guard let read = ImageRegion.read(regions) else {
                throw bad(id, "regions: expected a list of {\"box\": [x0, y0, x1, y1], \"labels\": {kind: class}}, found \(regions.summary) of another form")
            }
            record.regions = read
        }
        if case .array(let tasks)? = json["tasks"] {
            record.tasks = tasks.map { if case .string(let task) = $0 { task } else { "" } }
        } else if case .string(let task)? = json["task"] {
            record.tasks = [task]
        }
        return record
    }
}
