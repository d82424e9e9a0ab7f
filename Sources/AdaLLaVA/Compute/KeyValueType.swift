import AdaKernels

/// How a decoder stores keys and values.
public enum KeyValueType: String, Sendable, CaseIterable {
    /// 16-bit floats; 32-bit ones under ``Precision/f32``.
    case f16
    /// 8-bit integers, with a 16-bit scale for each position's keys of a head and one for its values: half the memory and, where a long context is read,
    /// half the time. Single rows' queries are rounded to 8 bits as well.
    case q8 = "q8_0"

    /// The kernels' type.
    func elementType(_ precision: Precision) -> ak_type {
        switch self {
        case .f16: precision == .f32 ? AK_F32 : AK_F16
        case .q8: AK_Q8_0
        }
    }

    /// Bits that one key or value takes, without its part of a scale.
    package func bits(_ precision: Precision) -> Int { 8 * KeyValueLayout(headDim: 1, type: elementType(precision)).elementBytes }
}
