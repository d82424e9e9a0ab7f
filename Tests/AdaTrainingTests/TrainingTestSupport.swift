import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

/// The recorded numbers in `Tests/Fixtures` and the models of the repository.
enum Fixtures {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    static let folder = root.appendingPathComponent("Tests/Fixtures")
    static func url(_ path: String) -> URL { folder.appendingPathComponent(path) }
}

extension TensorSource {
    /// The float32 values of a tensor.
    func floats(_ name: String) throws -> [Float] {
        let tensor = try tensor(name)
        try #require(tensor.type == .f32)
        return withExtendedLifetime(tensor) { (0 ..< tensor.count).map { tensor.bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) } }
    }

    /// The int64 values of a tensor.
    func integers(_ name: String) throws -> [Int] {
        let tensor = try tensor(name)
        try #require(tensor.type == .i64)
        return withExtendedLifetime(tensor) { (0 ..< tensor.count).map { Int(tensor.bytes.loadUnaligned(fromByteOffset: 8 * $0, as: Int64.self)) } }
    }
}

/// The largest absolute difference; infinite if the counts differ or a value is not a number.
func largestDifference(_ found: [Float], _ expected: [Float]) -> Float {
    guard found.count == expected.count else { return .infinity }
    return zip(found, expected).reduce(0) { worst, pair in
        let difference = abs(pair.0 - pair.1)
        return difference.isNaN ? .infinity : max(worst, difference)
    }
}

/// libAdaTorch, where it has been built: `scripts/build-adatorch.sh`.
let torch: TorchLibrary? = try? TorchLibrary.shared()

extension Trait where Self == ConditionTrait {
    /// Tests that train are skipped without libAdaTorch.
    static var needsTorch: Self {
        .enabled(if: torch != nil, "build/adatorch/libAdaTorch.so is not built: run scripts/build-adatorch.sh (apt: libtorch-dev)")
    }
}

/// A folder for one test, removed with it.
final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("adatraining-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func write(_ text: String, to name: String) throws -> URL {
        let file = url.appendingPathComponent(name)
        try Data(text.utf8).write(to: file)
        return file
    }
}
