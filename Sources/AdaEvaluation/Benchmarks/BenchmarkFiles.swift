import AdaLLaVA
import Foundation

/// A benchmark's folder, and the errors for missing or wrong files.
struct BenchmarkFolder {
    let url: URL

    init(_ url: URL) { self.url = url }

    /// The first of `names` that exists.
    func file(_ names: String..., needed: String) throws -> URL {
        for name in names {
            let file = url.appendingPathComponent(name)
            if Files.exists(file) { return file }
        }
        throw EvaluationError.missing(file: url.appendingPathComponent(names.first ?? "").path, needed: needed)
    }

    /// The first of `names` that exists, if any.
    func optionalFile(_ names: String...) -> URL? {
        names.map { url.appendingPathComponent($0) }.first { Files.exists($0) }
    }
}

/// A JSON value with its position in a file, so that errors can name it.
struct JSONPlace {
    let value: JSONValue
    let file: String
    let place: String

    init(contentsOf url: URL, needed: String) throws {
        value = try JSONValue.read(contentsOf: url, needed: needed)
        (file, place) = (url.path, "the whole file")
    }

    init(_ value: JSONValue, file: String, place: String) { (self.value, self.file, self.place) = (value, file, place) }

    func failure(_ expected: String, _ found: String? = nil) -> EvaluationError {
        .data(file: file, at: place, expected: expected, found: found ?? value.summary)
    }

    func member(_ key: String) throws -> JSONPlace {
        guard let member = value[key] else {
            throw EvaluationError.data(file: file, at: place, expected: "a member \"\(key)\"", found: value.summary)
        }
        return JSONPlace(member, file: file, place: "\(place) > \(key)")
    }

    func optionalMember(_ key: String) -> JSONPlace? {
        value[key].map { JSONPlace($0, file: file, place: "\(place) > \(key)") }
    }

    func array() throws -> [JSONPlace] {
        guard case .array(let elements) = value else { throw failure("an array") }
        return elements.enumerated().map { JSONPlace($1, file: file, place: place == "the whole file" ? "entry \($0)" : "\(place)[\($0)]") }
    }

    /// An object's members, sorted by key as numbers when all keys are numbers, else as text.
    func members() throws -> [(key: String, value: JSONPlace)] {
        guard case .object(let members) = value else { throw failure("an object") }
        return members.sorted { ($0.key.count, $0.key) < ($1.key.count, $1.key) }
            .map { ($0.key, JSONPlace($0.value, file: file, place: "\"\($0.key)\"")) }
    }

    func string() throws -> String {
        guard case .string(let text) = value else { throw failure("a text") }
        return text
    }

    /// A text, or a whole number as text: official files use both for identifiers.
    func identifier() throws -> String {
        switch value {
        case .string(let text): return text
        case .integer(let number): return String(number)
        default: throw failure("a text or a whole number")
        }
    }

    func integer() throws -> Int {
        guard case .integer(let number) = value else { throw failure("a whole number") }
        return number
    }

    func strings() throws -> [String] { try array().map { try $0.string() } }
}

/// Reads JSON Lines.
enum JSONLines {
    static func read(contentsOf url: URL, needed: String) throws -> [JSONPlace] {
        let file = try MappedFile(contentsOf: url, needed: needed)
        var places: [JSONPlace] = []
        for (number, line) in file.bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
            if line.allSatisfy({ $0 == 0x20 || $0 == 0x0D || $0 == 0x09 }) { continue }
            let value = try JSONReader.parse(UnsafeRawBufferPointer(rebasing: line), file: "\(url.path), line \(number + 1)")
            places.append(JSONPlace(value, file: url.path, place: "line \(number + 1)"))
        }
        return places
    }
}

/// A path from a data file must stay below its folder: the files are untrusted.
func safePath(_ path: String, below folder: URL, in place: JSONPlace) throws -> URL {
    if path.isEmpty || path.hasPrefix("/") || path.split(separator: "/").contains("..") {
        throw place.failure("a path below \(folder.path)", "\"\(path.prefix(200))\"")
    }
    return folder.appendingPathComponent(path)
}
