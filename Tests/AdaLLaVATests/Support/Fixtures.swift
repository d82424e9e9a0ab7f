import Foundation
import Testing

@testable import AdaLLaVA

/// The recorded numbers in `Tests/Fixtures` and the models of the repository.
enum Fixtures {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let folder = root.appendingPathComponent("Tests/Fixtures")
    static let models = root.appendingPathComponent("Models")

    static func url(_ path: String) -> URL { folder.appendingPathComponent(path) }

    static func json<Value: Decodable>(_ path: String, as type: Value.Type = Value.self) throws -> Value {
        try json(url(path))
    }

    static func json<Value: Decodable>(_ url: URL) throws -> Value {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Value.self, from: Data(contentsOf: url))
    }
}

/// A recorded safetensors file.
struct Recorded {
    let file: SafetensorsFile

    init(_ path: String) throws { file = try SafetensorsFile(contentsOf: Fixtures.url(path)) }

    func values(_ name: String) throws -> [Float] {
        let tensor = try file.tensor(name)
        return try Tensor(vector: tensor, count: tensor.count).values
    }

    func find(_ name: String) throws -> [Float]? { file.find(name) == nil ? nil : try values(name) }
}

/// The largest absolute difference; infinite if the counts differ or a value is not a number.
func largestDifference(_ found: [Float], _ expected: [Float]) -> Float {
    guard found.count == expected.count else { return .infinity }
    return zip(found, expected).reduce(0) { worst, pair in
        let difference = abs(pair.0 - pair.1)
        return difference.isNaN ? .infinity : max(worst, difference)
    }
}

/// Kernel sets that this machine can run; each parity test runs with every one.
let kernelSets = KernelSet.availableNames

/// The library's own generator: the same numbers on every machine.
typealias SeededGenerator = SplitMix64
