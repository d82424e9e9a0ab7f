import AdaLLaVA
import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// A vision tower that is not trained and whose features the engine computes: any that libtorch has no gradients for here (EfficientNet-Lite).
///
/// Features are computed once and kept, as float16, in one file, so that other samples of the same picture, later passes over the data, and
/// later runs over the same pictures only read them.
final class FrozenTower: Sendable {
    /// Copies of one tower: each encodes one image at a time.
    private let towers: [VisionTower]
    private let turn = Atomic<Int>(0)
    private let images: ImageTable
    private let store: FeatureStore

    var rows: Int { towers[0].tokens }
    var width: Int { towers[0].width }

    /// - Parameters:
    ///   - towers: at least one; as many images are encoded at the same time.
    ///   - images: the data's images; the file has a place for each.
    ///   - aspect: how images become squares.
    ///   - folder: where the file goes.
    init(_ towers: [VisionTower], images: ImageTable, aspect: CLIPImageProcessor.AspectMode, folder: URL) throws {
        precondition(!towers.isEmpty)
        (self.towers, self.images) = (towers, images)
        let fingerprint = images.fingerprint(with: [try FrozenTower.probe(towers[0]), aspect == .pad ? 0 : 1])
        store = try FeatureStore(folder: folder, name: fingerprint, images: images.count, values: towers[0].tokens * towers[0].width)
    }

    /// `[rows, width]` of an image.
    /// - Parameters:
    ///   - path: the image's, as the data set gives it.
    ///   - open: decodes the image, if its features are not kept.
    func features(of path: String, aspect: CLIPImageProcessor.AspectMode, open: () throws -> RGBImage) throws -> [Float] {
        let place = images.place(of: path)
        if let place, let known = store.read(place) { return known }
        let tower = towers[turn.wrappingAdd(1, ordering: .relaxed).oldValue % towers.count]
        let features = try tower.features(tower.imageProcessor(try open(), mode: aspect))
        if let place { try store.write(features, at: place) }
        return features
    }

    /// What tells one tower's features from another's: those of a test picture, hashed.
    private static func probe(_ tower: VisionTower) throws -> UInt64 {
        let side = tower.configuration.imageSize
        let ramp = (0 ..< 3 * side * side).map { Float($0 % 251) / 251 - 0.5 }
        var hash = FNV1a()
        for value in try tower.features(ramp) { hash.add(UInt64(value.bitPattern)) }
        return hash.value
    }
}

/// The different images of a data set, by path.
struct ImageTable: Sendable {
    private let places: [String: Int32]
    private let paths: FNV1a

    var count: Int { places.count }

    /// Reads all records for their images.
    /// - Throws: ``TrainingError/sample(id:index:file:reason:)``
    init(_ dataset: InstructionDataset) throws {
        var found: Set<String> = []
        for number in 0 ..< dataset.count where dataset.length(number).hasImage {
            for image in try dataset.record(number).images { found.insert(dataset.url(image, of: number).path) }
        }
        var hash = FNV1a()
        var places: [String: Int32] = [:]
        places.reserveCapacity(found.count)
        for (place, path) in found.sorted().enumerated() {
            places[path] = Int32(place)
            for byte in path.utf8 { hash.add(UInt64(byte)) }
            hash.add(0)
        }
        (self.places, paths) = (places, hash)
    }

    /// The image's number; `nil` for one that the data set did not have.
    func place(of path: String) -> Int? { places[path].map(Int.init) }

    /// A file name's part that is the same for the same paths and values.
    func fingerprint(with values: [UInt64]) -> String {
        var hash = paths
        for value in values { hash.add(value) }
        let digits = String(hash.value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// The hash of Fowler, Noll and Vo (FNV-1a), eight bytes at a time.
struct FNV1a: Sendable {
    private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325

    mutating func add(_ next: UInt64) { value = (value ^ next) &* 0x0000_0100_0000_01B3 }
}

/// Float16 vectors of one size by number, in a sparse file; which are there is known from a byte for each in a second file. A vector counts
/// only once its byte is written, so a run that was killed leaves none that is half there.
final class FeatureStore: Sendable {
    private let values: Int
    private let images: Int
    private let data: Int32
    private let marks: Int32
    private let path: String

    /// - Parameter name: tells files of one folder apart.
    /// - Throws: ``TrainingError/unwritable(path:reason:)``
    init(folder: URL, name: String, images: Int, values: Int) throws {
        (self.images, self.values) = (images, values)
        path = folder.appendingPathComponent("features-\(name).\(images)x\(values).f16").path
        data = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        marks = open(path + ".done", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard data >= 0, marks >= 0 else {
            let reason = String(cString: strerror(errno))
            if data >= 0 { close(data) }
            if marks >= 0 { close(marks) }
            throw TrainingError.unwritable(path: path, reason: reason)
        }
    }

    deinit {
        close(data)
        close(marks)
    }

    func read(_ place: Int) -> [Float]? {
        guard (0 ..< images).contains(place) else { return nil }
        var mark: UInt8 = 0
        guard pread(marks, &mark, 1, off_t(place)) == 1, mark == 1 else { return nil }
        var halves = [UInt16](repeating: 0, count: values)
        let bytes = 2 * values
        guard pread(data, &halves, bytes, off_t(place) * off_t(bytes)) == bytes else { return nil }
        return halves.map(halfToFloat)
    }

    /// Values beyond float16's range are kept at its ends.
    func write(_ features: [Float], at place: Int) throws {
        guard (0 ..< images).contains(place), features.count == values else { return }
        let halves = features.map { floatToHalf($0) }
        var mark: UInt8 = 1
        let bytes = 2 * values
        guard pwrite(data, halves, bytes, off_t(place) * off_t(bytes)) == bytes, pwrite(marks, &mark, 1, off_t(place)) == 1 else {
            throw TrainingError.unwritable(path: path, reason: String(cString: strerror(errno)))
        }
    }
}

/// IEEE half precision, rounded to the nearest, ties to even; beyond its range the largest finite value.
func floatToHalf(_ value: Float) -> UInt16 {
    let sign: UInt16 = value.sign == .minus ? 0x8000 : 0
    let magnitude = abs(value)
    if value.isNaN { return sign | 0x7E00 }
    if magnitude >= 65504 { return sign | 0x7BFF }
    // Below the smallest normal number steps are 2^-24 wide.
    if magnitude < 0x1p-14 { return sign | UInt16((magnitude * 0x1p24).rounded(.toNearestOrEven)) }
    let bits = magnitude.bitPattern
    let rounded = bits + 0xFFF + (bits >> 13 & 1)
    return sign | min(UInt16(truncatingIfNeeded: (rounded >> 13) - (112 << 10)), 0x7BFF)
}
