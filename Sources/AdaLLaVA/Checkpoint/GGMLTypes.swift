/// ggml's numbers and names for element types, as GGUF files hold them.
extension ElementType {
    private static let ggmlTypes: [(code: UInt32, name: String, type: ElementType)] = [
        (0, "F32", .f32), (1, "F16", .f16), (30, "BF16", .bf16),
        (8, "Q8_0", .q8_0), (2, "Q4_0", .q4_0), (3, "Q4_1", .q4_1), (6, "Q5_0", .q5_0), (7, "Q5_1", .q5_1),
        (10, "Q2_K", .q2_K), (11, "Q3_K", .q3_K), (12, "Q4_K", .q4_K), (13, "Q5_K", .q5_K), (14, "Q6_K", .q6_K),
        (20, "IQ4_NL", .iq4_nl), (23, "IQ4_XS", .iq4_xs), (34, "TQ1_0", .tq1_0), (35, "TQ2_0", .tq2_0), (39, "MXFP4", .mxfp4),
        (24, "I8", .i8), (25, "I16", .i16), (26, "I32", .i32), (27, "I64", .i64), (28, "F64", .f64),
    ]

    /// Types that exist and whose values are not read, with the values and bytes of a block: a file may hold them where nothing needs them.
    private static let unreadGGMLTypes: [UInt32: (name: String, values: Int, bytes: Int)] = [
        9: ("Q8_1", 32, 36), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
        21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 29: ("IQ1_M", 256, 56), 31: ("Q4_0_4_4", 32, 18), 32: ("Q4_0_4_8", 32, 18),
        33: ("Q4_0_8_8", 32, 18), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
    ]

    /// A type by its number in a file: its name for messages, and the values and bytes of a block. Of a number that is not known the bytes are 0.
    static func ggml(_ code: UInt32) -> (type: ElementType, name: String, block: (values: Int, bytes: Int)) {
        if let known = ggmlTypes.first(where: { $0.code == code }) { return (known.type, known.name, known.type.block) }
        let unread = unreadGGMLTypes[code] ?? (name: "the unknown ggml type \(code)", values: 1, bytes: 0)
        return (.unread, unread.name, (unread.values, unread.bytes))
    }

    /// `nil` for types that GGUF does not have.
    var ggmlType: UInt32? { Self.ggmlTypes.first { $0.type == self }?.code }

    static var ggmlNames: String { ggmlTypes.map(\.name).joined(separator: ", ") }
}
