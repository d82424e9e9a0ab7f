import Foundation

/// The filters that images are resized with, as Pillow has them.
package enum ResampleFilter: Sendable, Equatable {
    /// A triangle.
    case bilinear
    /// Keys' cubic convolution with a = -1/2 (IEEE ASSP 29(6), 1981).
    case bicubic
    /// A sinc, windowed by a wider one.
    case lanczos

    /// Reach to either side, in output samples when shrinking.
    fileprivate var support: Double {
        switch self {
        case .bilinear: 1
        case .bicubic: 2
        case .lanczos: 3
        }
    }

    fileprivate func weight(_ distance: Double) -> Double {
        let x = abs(distance)
        switch self {
        case .bilinear: return max(1 - x, 0)
        case .bicubic:
            let a = -0.5
            if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
            if x < 2 { return (((x - 5) * x + 8) * x - 4) * a }
            return 0
        case .lanczos:
            func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(x * .pi) / (x * .pi) }
            // Pillow counts -3 in and 3 out; the weight there is one rounding error.
            return -3 <= distance && distance < 3 ? sinc(distance) * sinc(distance / 3) : 0
        }
    }
}

/// How weights are rounded, and in which order rows and columns are resized.
package enum ResampleArithmetic: Sendable, Equatable {
    /// Pillow 13's: weights of 22 fractional bits; tall pictures that shrink begin with columns.
    case pillow
    /// PyTorch's for bytes on processors with AVX2, as torchvision resizes a tensor: weights of as many fractional bits as leave the largest of an axis below
    /// 2^15, rows first. For whole pictures.
    case torch
}

/// Plan for one axis of a resize: for every output position its input samples and their fixed-point weights.
///
/// Weights have 22 fractional bits, as in Pillow's 8-bit resampling, and are kept split, `weight = high * 2048 + low`, so that both
/// parts fit 16 bits: every vector unit multiplies 16-bit pairs fastest, and their sum is still exact.
///
/// Samples outside an image all have the fill's value, so only the sum of their weights is kept: work follows the image, not its margins.
struct ResampleAxis {
    /// Fractional bits of a weight: 32 bits less 8 for the pixel and 2 for the negative lobes.
    static let precisionBits: Int32 = 22
    static let lowBits: Int32 = 11
    /// Weights are padded with zeros to a multiple of this, so inner loops need no remainder.
    static let block = 8

    /// First image sample of every output position.
    let starts: [Int]
    /// How many blocks of weights an output position has, at least 1.
    let blocks: Int
    /// `[outputs][blocks * block]`.
    let high: [Int16]
    let low: [Int16]
    /// For every output position the weight of all samples outside the image together, and of all samples there are.
    let outside: [Int32]
    let total: [Int32]
    /// The image samples that any output position reads.
    let inputRange: Range<Int>

    var outputCount: Int { starts.count }
    var stride: Int { blocks * Self.block }

    /// - Parameters:
    ///   - inputSize: samples of the input, at least 1.
    ///   - outputSize: samples of the whole output, at least 1.
    ///   - window: the output positions that are wanted; not empty.
    ///   - image: the input samples that are an image's.
    init(inputSize: Int, outputSize: Int, window: Range<Int>, image: Range<Int>, filter: ResampleFilter = .bicubic, arithmetic: ResampleArithmetic = .pillow) {
        let scale = Double(inputSize) / Double(outputSize)
        let filterScale = max(scale, 1)
        let support = filter.support * filterScale
        let step = 1 / filterScale
        var reads: [Range<Int>] = []
        var weights: [ArraySlice<Int32>] = []
        var outside: [Int32] = [], total: [Int32] = []
        let positions = window.map { position -> (start: Int, end: Int, weights: [Double]) in
            let center = (Double(position) + 0.5) * scale
            let start = max(0, Int(center - support + 0.5))
            let end = max(start, min(inputSize, Int(center + support + 0.5)))
            let raw = (start..<end).map { filter.weight((Double($0) - center + 0.5) * step) }
            let sum = raw.reduce(0, +)
            return (start, end, raw.map { sum == 0 ? $0 : $0 / sum })
        }
        var bits = Self.precisionBits
        if arithmetic == .torch {
            let largest = positions.lazy.flatMap(\.weights).max() ?? 1
            bits = (0..<Self.precisionBits).first { Int(0.5 + largest * Double(1 << ($0 + 1))) >= 1 << 15 } ?? bits
        }
        for (start, end, exact) in positions {
            // Fewer bits are the same numbers with zeros behind.
            let fixed = exact.map { weight in
                let scaled = weight * Double(1 << bits)
                return Int32(scaled < 0 ? scaled - 0.5 : scaled + 0.5) << (Self.precisionBits - bits)
            }
            let inside = (start..<end).clamped(to: image)
            let kept = inside.isEmpty ? [] : fixed[inside.lowerBound - start..<inside.upperBound - start]
            reads.append(inside)
            weights.append(kept)
            total.append(fixed.reduce(0, &+))
            outside.append((total.last ?? 0) &- kept.reduce(0, &+))
        }
        let read = reads.filter { !$0.isEmpty }
        let first = read.map(\.lowerBound).min() ?? image.lowerBound
        inputRange = first..<max(first, read.map(\.upperBound).max() ?? first)
        starts = reads.map { $0.isEmpty ? first : $0.lowerBound }
        blocks = max(1, ((weights.map(\.count).max() ?? 0) + Self.block - 1) / Self.block)
        let stride = blocks * Self.block
        var high = [Int16](repeating: 0, count: starts.count * stride)
        var low = high
        for (output, row) in weights.enumerated() {
            for (tap, weight) in row.enumerated() {
                high[output * stride + tap] = Int16(truncatingIfNeeded: weight >> Self.lowBits)
                low[output * stride + tap] = Int16(truncatingIfNeeded: weight & (1 << Self.lowBits - 1))
            }
        }
        (self.high, self.low, self.outside, self.total) = (high, low, outside, total)
    }
}
