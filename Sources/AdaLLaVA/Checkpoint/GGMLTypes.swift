/// ggml's numbers and names for element types, as GGUF files hold them.
extension ElementType {
    private static let ggmlTypes: [(code: UInt32, name: String, type: ElementType)] = [
        (0, "F32", .f32), (1, "F16", .f16), (30, "BF16", .bf16),
        (8, "Q8_0", .q8_0), (2, "Q4_0", .q4_0), (3, "Q4_1", .q4_1), (6, "Q5_0", .q5_0), (7, "Q5_1", .q5_1),
        (12, "Q4_K", .q4_K), (13, "Q5_K", .q5_K), (14, "Q6_K", .q6_K),
        (24, "I8", .i8), (25, "I16", .i16), (26, "I32", .i32), (27, "I64", .i64), (28, "F64", .f64),
    ]

    /// Types that exist but are not read here, so that messages can name them.
    private static let unreadableGGMLTypes: [UInt32: String] = [
        9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
        21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
    ]

    init?(ggmlType code: UInt32) {
        guard let entry = Self.ggmlTypes.first(where: { $0.code == code }) else { return nil }
        self = entry.type
    }

    /// `nil` for types that GGUF does not have.
    var ggmlType: UInt32? { Self.ggmlTypes.first { $0.type == self }?.code }

    static var ggmlNames: String { ggmlTypes.map(\.name).joined(separator: ", ") }

    static func ggmlName(_ code: UInt32) -> String {
        ggmlTypes.first { $0.code == code }?.name ?? unreadableGGMLTypes[code] ?? "the unknown ggml type \(code)"
    }
}
