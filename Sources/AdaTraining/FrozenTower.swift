import AdaLLaVA
import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// A vision tower that is not trained, with features computed by the engine: any that has no gradients in AdaTorch (EfficientNet-Lite).
///
/// Features are computed once and kept, as float16, in one file, so that other samples of the same picture, later passes over the data, and
/// later runs over the same pictures only read them.
final class FrozenTower: Sendable {
    /// Copies of one tower: each encodes one image at a time.
    private let towers: [VisionTower]
    private let turn = Atomic<Int>(0)
    private let store: FeatureStore

    var rows: Int { towers[0].tokens }
    var width: Int { towers[0].width }

    /// - Parameters:
    ///   - towers: at least one; as many images are encoded at the same time.
    ///   - aspect: how images become squares.
    ///   - folder: where the file goes.
    /// - Throws: ``TrainingError/unwritable(path:reason:)``
    init(_ towers: [VisionTower], aspect: CLIPImageProcessor.AspectMode, folder: URL) throws {
        precondition(!towers.isEmpty)
        self.towers = towers
        var hash = try FrozenTower.probe(towers[0])
        hash.add(aspect == .pad ? 0 : 1)
        let digits = String(hash.value, radix: 16)
        store = try FeatureStore(
            folder: folder, name: String(repeating: "0", count: 16 - digits.count) + digits, values: towers[0].tokens * towers[0].width)
    }

    /// `[rows, width]` of an image.
    /// - Parameters:
    ///   - path: the image's own, by which its features are found again.
    ///   - open: decodes the image, if its features are not kept.
    func features(of path: String, aspect: CLIPImageProcessor.AspectMode, open: () throws -> RGBImage) throws -> [Float] {
        let key = FNV1a(path)
        if let known = store.read(key.value) { return known }
        let tower = towers[turn.wrappingAdd(1, ordering: .relaxed).oldValue % towers.count]
        let features = try tower.features(tower.imageProcessor(try open(), mode: aspect))
        try store.write(features, key: key.value)
        return features
    }

    /// A hash of the features of a test picture, which identifies the tower.
    private static func probe(_ tower: VisionTower) throws -> FNV1a {
        let side = tower.configuration.imageSize
        let ramp = (0 ..< 3 * side * side).map { Float($0 % 251) / 251 - 0.5 }
        var hash = FNV1a()
        for value in try tower.features(ramp) { hash.add(UInt64(value.bitPattern)) }
        return hash
    }
}

/// Float16 vectors of one size by key, consecutive in a data file; an index file has their keys in the same order. A key is written after its
/// vector, so that a killed run leaves no key of an incomplete one; several processes may add to the same files.
final class FeatureStore: Sendable {
    private let values: Int
    private let data: Int32
    private let index: Int32
    private let path: String

    private struct State {
        var places: [UInt64: Int] = [:]
        /// Keys of the index that were read.
        var count = 0
    }
    private let state = Mutex(State())

    /// - Parameter name: distinguishes the files of one folder.
    /// - Throws: ``TrainingError/unwritable(path:reason:)``
    init(folder: URL, name: String, values: Int) throws {
        self.values = values
        path = folder.appendingPathComponent("features-\(name)x\(values).f16").path
        data = Files.open(path, O_RDWR | O_CREAT)
        index = Files.open(path + ".keys", O_RDWR | O_CREAT)
        guard data >= 0, index >= 0 else {
            let failure = unwritable()
            if data >= 0 { close(data) }
            if index >= 0 { close(index) }
            throw failure
        }
        state.withLock { readIndex(&$0) }
    }

    deinit {
        close(data)
        close(index)
    }

    private func unwritable() -> TrainingError { .unwritable(path: path, reason: String(cString: strerror(errno))) }

    /// Reads the entries that this and other processes have added.
    private func readIndex(_ state: inout State) {
        var keys = [UInt64](repeating: 0, count: 4096)
        while true {
            let bytes = pread(index, &keys, keys.count * 8, off_t(state.count * 8))
            guard bytes >= 8 else { return }
            for key in keys.prefix(bytes / 8) {
                state.places[UInt64(littleEndian: key)] = state.count
                state.count += 1
            }
        }
    }

    func read(_ key: UInt64) -> [Float]? {
        guard let place = state.withLock({ $0.places[key] }) else { return nil }
        var halves = [UInt16](repeating: 0, count: values)
        let bytes = 2 * values
        guard pread(data, &halves, bytes, off_t(place) * off_t(bytes)) == bytes else { return nil }
        return widened(halves)
    }

    /// Values beyond float16's range are kept at its ends. A key that is known, and vectors of another size, are left out.
    /// - Throws: ``TrainingError/unwritable(path:reason:)``
    func write(_ features: [Float], key: UInt64) throws {
        guard features.count == values else { return }
        let halves = features.map { floatToHalf($0) }
        try state.withLock { state in
            guard flock(index, LOCK_EX) == 0 else { throw unwritable() }
            defer { _ = flock(index, LOCK_UN) }
            readIndex(&state)
            guard state.places[key] == nil else { return }
            var stored = key.littleEndian
            let bytes = 2 * values
            guard pwrite(data, halves, bytes, off_t(state.count) * off_t(bytes)) == bytes,
                pwrite(index, &stored, 8, off_t(state.count * 8)) == 8
            else { throw unwritable() }
            state.places[key] = state.count
            state.count += 1
        }
    }
}

/// Float32 values of halves; many at a time, where none is infinite or not a number.
func widened(_ halves: [UInt16]) -> [Float] {
    guard halves.allSatisfy({ $0 & 0x7C00 != 0x7C00 }) else { return halves.map(halfToFloat) }
    // The half's exponent and fraction, read as a float's, are 2^112 times too small, below the smallest normal half too.
    return halves.map { Float(bitPattern: UInt32($0 & 0x8000) << 16 | UInt32($0 & 0x7FFF) << 13) * 0x1p112 }
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
