import AdaKernels
import Foundation

extension ak_kernels: @retroactive @unchecked Sendable {}
extension ak_tuning: @retroactive @unchecked Sendable {}

/// The kernels of one instruction set, their tuning, and the precision that a model computes in. Immutable.
package struct KernelSet: @unchecked Sendable {
    /// The functions: one table of the library for each instruction set, never freed.
    let functions: UnsafePointer<ak_kernels>
    /// Constants of this instruction set.
    package let tuning: ak_tuning
    let precision: Precision

    /// - Parameter name: `nil` takes `ADALLAVA_KERNELS`, or the best that this processor runs.
    /// - Throws: ``ComputeError/kernels(name:available:)`` if this processor does not have the named kernels.
    package init(named name: String? = nil, precision: Precision = .automatic) throws {
        let name = name ?? ProcessInfo.processInfo.environment["ADALLAVA_KERNELS"]
        if let name, !name.isEmpty {
            guard let found = ak_kernels_named(name) else { throw ComputeError.kernels(name: name, available: KernelSet.availableNames) }
            functions = UnsafePointer(found)
        } else {
            functions = UnsafePointer(ak_kernels_best())
        }
        tuning = ak_kernels_tuning(functions)
        self.precision = precision
    }

    package var table: ak_kernels { functions.pointee }

    static let names = ["portable", "avx2", "avxvnni", "avx512", "amx", "neon"]

    static var availableNames: [String] { names.filter { ak_kernels_named($0) != nil } }

    package var name: String { String(cString: table.name) }
}

/// How a row came into a batch. The arithmetic of a row follows its role and never the number of rows, so that an answer is the same, token for
/// token, alone and in any batch.
package enum RowRole: Sendable {
    /// One of many rows of a sequence: a prompt's, or an image's patches. Products are bound by arithmetic.
    case chunk
    /// The only row of its sequence in a step: a token of an answer, or the latency token. Products of a few of them are bound by memory.
    case single
}

/// Arithmetic of a model.
public enum Precision: String, Sendable, CaseIterable {
    /// The fastest arithmetic that suits the weights: 8-bit dot products for 8-bit weights, BF16 dot products for BF16 weights and, for
    /// prompts and images, for float16 weights (without such instructions, AVX2 multiplies blocks of 14-bit integers there); float32 for the
    /// rest; keys and values in 16 bits.
    case automatic = "auto"
    /// As `auto`, but float weights are rounded to Q8_0 at load (matrices whose rows are whole blocks of 32): a quarter of float32's memory, and
    /// 8-bit products where the processor has no BF16 ones. The layers of CLIP towers, where their inputs are a multiple of 64 and the kernels have tiles of
    /// 8-bit integers (AMX), get a scale for each 256 weights instead, and so do the rows that they are multiplied with.
    case q8
    /// Everything in float32, for any type of stored weights: for comparisons with other implementations.
    case f32
}

extension KernelSet {
    /// The activation type for a matmul with `weight`.
    ///
    /// Single rows are bound by memory in any arithmetic, so 16-bit weights are rounded to BF16, or to 16-bit integers, for chunks only.
    /// Tiles of BF16 are so much faster that chunks are multiplied with 8- and 4-bit weights in them too: rounding both to 8 bits of mantissa is
    /// closer to float32 than 8-bit activations with a scale for each 32 are.
    package func activationType(_ weight: WeightMatrix, _ role: RowRole) -> ak_type {
        guard precision != .f32 else { return AK_F32 }
        let isChunk = role == .chunk
        switch weight.matrix.type {
        case AK_I8: return AK_I8
        case _ where isChunk && tuning.bf16_tiles != 0 && weight.matrix.type != AK_F32: return AK_BF16
        case AK_Q8_0, AK_Q4_0, AK_Q4_1: return AK_Q8_0
        case _ where weight.matrix.layout == AK_ROWS: return AK_F32
        case AK_BF16 where tuning.bf16_dot != 0: return AK_BF16
        case AK_F16 where isChunk && tuning.bf16_dot != 0: return AK_BF16
        case AK_F16, AK_BF16: return isChunk && tuning.wide_int16 != 0 ? AK_I16 : AK_F32
        default: return AK_F32
        }
    }

    /// Whether attention of a chunk's rows is multiplied in BF16: if the product that made the queries was rounded as much.
    func roundsAttention(_ query: WeightMatrix, headDim: Int) -> Bool {
        canRoundAttention(headDim: headDim) && [AK_BF16, AK_I8].contains(activationType(query, .chunk))
    }

    /// Whether these kernels multiply queries, keys and values in BF16.
    package func canRoundAttention(headDim: Int) -> Bool {
        table.attention_pairs != nil && tuning.bf16_dot != 0 && headDim % 2 == 0 && headDim <= Int(AK_PAIR_HEAD_DIM)
    }
}

/// The machine lacks memory, threads or kernels that were requested.
package enum ComputeError: AdaLLaVAError, Equatable {
    /// The system did not start this many threads.
    case threads(Int)
    /// Kernels requested by name that this processor or build does not have.
    case kernels(name: String, available: [String])
    /// The system, or the limit that was set, does not give so much memory.
    case memory(what: String, bytes: Int, used: Int, limit: Int)
    /// The system gives no more memory.
    case noMemory(what: String, bytes: Int)

    package var category: ErrorCategory {
        switch self {
        case .threads, .memory, .noMemory: .software
        case .kernels: .usage
        }
    }

    package var description: String {
        switch self {
        case .threads(let count): "could not start \(count) threads; try fewer with --threads"
        case .kernels(let name, let available):
            "ADALLAVA_KERNELS=\(name): this processor or build does not have these kernels; it has \(available.joined(separator: ", "))"
        case .noMemory(let what, let bytes):
            "\(what) need \(megabytes(bytes)), which the system does not give; use a smaller model, a shorter prompt or fewer images, or raise the limit (ulimit -v)"
        case .memory(let what, let bytes, let used, let limit):
            "\(what) need \(megabytes(bytes)) more, \(megabytes(used)) are in use and \(megabytes(limit)) is the limit; "
                + "use a shorter prompt, fewer images, a smaller --max-tokens or fewer requests at once"
        }
    }
}

func megabytes(_ bytes: Int) -> String { String(format: "%.1f MB", Double(bytes) / 1e6) }
