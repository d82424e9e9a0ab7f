import AdaKernels
import Testing

struct TuningTests {
    private func tuning(_ set: KernelSet) -> ak_tuning {
        // A copy of the table, as the engine holds one.
        var table = set.table
        return ak_kernels_tuning(&table)
    }

    // A failure means that the engine rounds activations to a type that the kernels do not multiply, or cuts work into pieces of no size.
    @Test("constants fit the kernels", arguments: KernelSet.available)
    func constantsFitTheKernels(set: KernelSet) {
        let tuning = tuning(set)
        for flag in [tuning.bf16_dot, tuning.bf16_tiles, tuning.int8_tiles, tuning.wide_int16, tuning.mapped_rows, tuning.one_panel_at_a_time] {
            #expect(flag == 0 || flag == 1)
        }
        #expect(tuning.bf16_dot == 0 || ak_has_bf16_dot() != 0)
        #expect(tuning.bf16_tiles == 0 || tuning.bf16_dot == 1, "tiles multiply what dot products do")
        #expect(tuning.int8_tiles == 0 || tuning.bf16_tiles == 1)
        #expect(tuning.wide_int16 == 0 || tuning.bf16_dot == 0, "many rows are multiplied in one type")
        #expect((tuning.bf16_dot == 1) == (set.table.attention_pairs != nil && ak_has_bf16_dot() != 0))
        #expect(tuning.bundle_panels >= 4 && tuning.half_panels >= 1 && tuning.few_tokens >= 1 && tuning.few_tokens < AK_WIDE_TOKENS)
        #expect(tuning.query_tile >= 1)
        #expect(tuning.item_least_bytes > 0 && tuning.item_least_bytes <= tuning.item_bytes_many)
        #expect(tuning.item_bytes_many <= tuning.item_bytes_few && tuning.item_bytes_few <= tuning.item_bytes_few_rows)
    }

    // A failure means that kernels are taken for those of another instruction set.
    @Test("instruction sets are told apart", arguments: KernelSet.available)
    func instructionSetsAreToldApart(set: KernelSet) {
        let tuning = tuning(set)
        #expect((tuning.bf16_tiles == 1) == (set.name == "amx"))
        #expect((tuning.wide_int16 == 1) == ["avx2", "avxvnni"].contains(set.name))
        switch set.name {
        case "amx": #expect(tuning.mapped_rows == 0 && tuning.one_panel_at_a_time == 0 && tuning.query_tile == 64)
        case "avx512": #expect((tuning.bf16_dot == 1) == (ak_has_bf16_dot() != 0) && (tuning.bundle_panels > 4) == (ak_has_int8_dot() != 0))
        case "avx2", "avxvnni": #expect(tuning.mapped_rows == 1 && tuning.bf16_dot == 0)
        default: #expect(tuning.bf16_dot == 0 && tuning.mapped_rows == 0 && tuning.bundle_panels == 4)
        }
        #expect(set.name == "amx" || tuning.query_tile == 24)
    }

    // A failure means that a table of a future version makes this one read what is not there.
    @Test("unknown kernels are tuned as portable") func unknownKernelsAreTunedAsPortable() {
        var table = ak_kernels_named("portable").pointee
        let portable = ak_kernels_tuning(&table)
        "sse9".withCString { name in
            table.name = name
            let unknown = ak_kernels_tuning(&table)
            #expect(unknown.bf16_dot == 0 && unknown.bundle_panels == portable.bundle_panels && unknown.item_bytes_few == portable.item_bytes_few)
        }
    }
}
