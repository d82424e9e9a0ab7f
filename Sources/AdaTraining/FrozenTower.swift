import AdaLLaVA
import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// A vision tower that is not trained and whose features the engine computes: any that libtorch has no gradients for here (EfficientNet-Lite).
///
/// Features are computed once and kept, as float16, in one file of the run's folder, so that later passes over the data only read them.
final class FrozenTower: Sendable {
    private let tower: VisionTower
    private let store: FeatureStore?

    var rows: Int { tower.tokens }
    var width: Int { tower.width }

    /// - Parameters:
    ///   - images: how many images the data has; the file has a place for each.
    ///   - folder: where the file goes; `nil` keeps nothing.
    init(_ tower: VisionTower, images: Int, folder: URL?) throws {
        self.tower = tower
        store = try folder.map { try FeatureStore(folder: $0, images: images, values: tower.tokens * tower.width) }
    }

    /// `[rows, width]` of an image.
    /// - Parameters:
    ///   - place: the image's number in the file; `nil` is computed every time.
    ///   - open: decodes the image, if its features are not kept.
    func features(place: Int?, aspect: CLIPImageProcessor.AspectMode, open: () throws -> RGBImage) throws -> [Float] {
        if let place, let known = store?.read(place) { return known }
        let features = try tower.features(tower.imageProcessor(try open(), mode: aspect))
        if let place { try store?.write(features, at: place) }
        return features
    }
}

/// Float16 vectors of one size by number, in a sparse file; which are there is known from a byte for each in a second file. A vector counts
/// only once its byte is written, so a run that was killed leaves none that is half there.
final class FeatureStore: Sendable {
    private let values: Int
    private let images: Int
    private let data: Int32
    private let marks: Int32
    private let path: String

    init(folder: URL, images: Int, values: Int) throws {
        (self.images, self.values) = (images, values)
        path = folder.appendingPathComponent("features.\(images)x\(values).f16").path
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
