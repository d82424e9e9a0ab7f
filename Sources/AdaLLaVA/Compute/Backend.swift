import AdaKernels
import Foundation

/// The kernels and threads that a model computes with, and the scratch memory they need.
final class Backend: @unchecked Sendable {
    let kernels: ak_kernels
    let pool: ThreadPool
    let precision: Precision
    /// Whether weights are packed for speed at load. Without it they stay in the mapped file, which loads at once and computes slowly.
    let packsWeights: Bool
    /// Where weights stay whose type the kernels multiply from the file.
    let placement: WeightPlacement
    /// Where packed weights go.
    let weights = HugePageArena()
    /// Whether the kernels multiply BF16 by dot products, faster than float32.
    let hasBF16Dot: Bool
    /// Whether tiles of BF16 (AMX) make many tokens faster than 8-bit dot products do.
    let hasBF16Tiles: Bool
    /// Whether tiles of 8-bit integers make many tokens faster still, where 256 weights share a scale.
    let hasInt8Tiles: Bool
    /// Whether the kernels multiply 16-bit integers faster than float32: 16-bit weights are rounded to them then, for `AK_WIDE_TOKENS` rows or more.
    let multipliesWide: Bool
    private var scratch: [AlignedMemory]
    private var pieceValues = AlignedMemory(byteCount: 0)
    /// Where each worker's scratch lies, until the next ``reserveScratch(_:)``. A plain address, not an array: threads that read an array
    /// count references to it, and wait for each other's counts.
    let scratchAddresses: UnsafeMutablePointer<UnsafeMutableRawPointer>
    private var identityList = IndexList([])
    var pieceTable = WorkPieceTable()
    let keyValuePairs = KeyValuePairs()
    /// Of the keys and values of sequences that have ended.
    let spareSlabs = SpareSlabs()

    /// - Throws: ``ComputeError/kernels(name:available:)`` if `ADALLAVA_KERNELS` names kernels that this processor does not have.
    init(
        threads: Int? = nil, precision: Precision = .automatic, kernels name: String? = nil, packsWeights: Bool = true,
        placement: WeightPlacement = .automatic
    ) throws
    {
        pool = try ThreadPool(threads: threads)
        self.precision = precision
        self.packsWeights = packsWeights
        self.placement = placement
        kernels = try Backend.selectKernels(name ?? ProcessInfo.processInfo.environment["ADALLAVA_KERNELS"])
        let name = String(cString: kernels.name)
        hasBF16Tiles = name == "amx"
        hasInt8Tiles = withUnsafePointer(to: kernels) { ak_has_int8_tiles($0) != 0 }
        hasBF16Dot = hasBF16Tiles || (ak_has_bf16_dot() != 0 && name == "avx512")
        multipliesWide = name == "avx2"
        scratch = (0 ..< pool.threads).map { _ in AlignedMemory(byteCount: 1 << 16) }
        scratchAddresses = .allocate(capacity: scratch.count)
        for (worker, memory) in scratch.enumerated() { (scratchAddresses + worker).initialize(to: memory.address) }
    }

    deinit { scratchAddresses.deallocate() }

    /// Whether the weights of `tensor` are multiplied where the file has them.
    /// - Parameter picksInputs: whether plans leave inputs out, for which panels are faster.
    func maps(_ tensor: StoredTensor, picksInputs: Bool) -> Bool {
        guard tensor.type.multipliesInFile else { return false }
        switch placement {
        case .memory: return false
        case .file: return true
        case .automatic:
            return !picksInputs && tensor.file.bytes.count >= Backend.mappedBytes && withUnsafePointer(to: kernels) { ak_multiplies_rows($0) != 0 }
        }
    }

    /// Files from this size on are left where they are, where that is as fast: packing a gigabyte takes most of a second, and as much memory again until
    /// the file's pages are given back. Smaller ones are packed sooner than anyone notices, and short prompts are faster then.
    static let mappedBytes = 1 << 30

    static let kernelNames = ["portable", "avx2", "avx512", "amx", "neon"]

    static var availableKernels: [String] { kernelNames.filter { ak_kernels_named($0) != nil } }

    private static func selectKernels(_ name: String?) throws -> ak_kernels {
        guard let name, !name.isEmpty else { return ak_kernels_best().pointee }
        guard let found = ak_kernels_named(name) else { throw ComputeError.kernels(name: name, available: availableKernels) }
        return found.pointee
    }

    /// Gives every worker at least `bytes` of scratch. Called between runs only.
    func reserveScratch(_ bytes: Int) {
        for worker in scratch.indices where scratch[worker].byteCount < bytes {
            scratch[worker] = AlignedMemory(byteCount: bytes)
            scratchAddresses[worker] = scratch[worker].address
        }
    }

    func scratch(_ worker: Int) -> UnsafeMutableRawPointer { scratchAddresses[worker] }

    /// Room for `count` values of each worker's piece of a tensor that is used up by the same worker; valid until the next call.
    func pieceMemory(_ count: Int) -> (address: UnsafeMutablePointer<Float>, count: Int) {
        let padded = (count + 15) / 16 * 16, bytes = padded * pool.threads * MemoryLayout<Float>.stride
        if pieceValues.byteCount < bytes { pieceValues = AlignedMemory(byteCount: bytes) }
        return (pieceValues.address.assumingMemoryBound(to: Float.self), padded)
    }

    /// The list 0, 1, 2 … that stands for "all" panels, at least `count` long.
    func identity(_ count: Int) -> IndexList {
        if identityList.count < count { identityList = IndexList((0 ..< Int32(max(count, 1024))).map { $0 }) }
        return identityList
    }
}

/// Where Q8_0, Q4_0 and Q4_1 weights lie while a model runs; results are the same.
public enum WeightPlacement: Sendable {
    /// In the file from a gigabyte on, if this processor multiplies them there as fast (AVX2, AVX-512 with VNNI and VBMI but without AMX); packed in
    /// memory otherwise.
    case automatic
    /// Packed in memory.
    case memory
    /// In the mapped file: the model is ready at once, takes no memory of its own beside its caches and shares its pages with other processes.
    case file
}

/// In what arithmetic a model computes.
public enum Precision: String, Sendable, CaseIterable {
    /// The fastest arithmetic that suits the weights: 8-bit dot products for 8-bit weights, BF16 dot products for BF16 weights and, for
    /// more than four tokens at once, for float16 weights (without such instructions, AVX2 multiplies blocks of 14-bit integers for 24
    /// tokens or more); float32 for the rest; keys and values in 16 bits.
    case automatic = "auto"
    /// As `auto`, but float weights are rounded to Q8_0 at load (matrices whose rows are whole blocks of 32): a quarter of float32's memory, and
    /// 8-bit products where the processor has no BF16 ones. The layers of CLIP towers, where their inputs are a multiple of 64 and the kernels have tiles of
    /// 8-bit integers (AMX), get a scale for each 256 weights instead, and so do the rows that meet them.
    case q8
    /// Everything in float32, whatever the weights are stored in: for comparing with another implementation.
    case f32
}
