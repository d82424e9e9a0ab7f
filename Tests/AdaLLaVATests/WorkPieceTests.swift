import AdaKernels
import Testing

@testable import AdaLLaVA

struct WorkPieceTests {
    private func matrix(_ type: ak_type, _ layout: ak_layout, panels: Int, blocks: Int, bundle: Int) -> ak_matrix {
        let stride = layout == AK_ROWS ? blocks * Int(ak_type_bytes(type)) : Int(ak_panel_bytes(type, Int32(blocks * 32)))
        return ak_matrix(
            type: type, layout: layout, rows: Int32(panels * 16), inputs: Int32(blocks * 32), panels: Int32(panels), blocks: Int32(blocks),
            bundle: Int32(bundle), stride: stride, data: nil)
    }

    // A failure means that rows of a product are computed twice or never, or that threads get unequal parts of a decode.
    @Test("pieces cover every panel once", arguments: [1, 2, 3, 5, 16], [1, 4, 5, 600])
    func piecesCoverEveryPanelOnce(threads: Int, tokens: Int) throws {
        let workspace = try Workspace(threads: threads)
        let runs: [[(ak_type, ak_layout, panels: Int, blocks: Int, bundle: Int)]] = [
            [(AK_Q8_0, AK_PANELS, 36, 18, 1), (AK_Q8_0, AK_PANELS, 12, 18, 1), (AK_Q8_0, AK_PANELS, 12, 18, 1)], [(AK_Q8_0, AK_PANELS, 3072, 18, 1)],
            [(AK_Q4_1, AK_PANELS, 128, 64, 1), (AK_Q4_1, AK_PANELS, 16, 64, 1), (AK_Q8_0, AK_PANELS, 16, 64, 1)],
            [(AK_Q4_0, AK_PANELS, 36, 48, 9)], [(AK_Q8_0, AK_PANELS, 130, 64, 16)], [(AK_BF16, AK_PANELS, 1, 1, 1)], [(AK_F16, AK_PANELS, 37, 3, 1), (AK_F16, AK_PANELS, 5, 3, 1)],
            [(AK_Q4_0, AK_ROWS, 256, 344, 1)], [(AK_Q8_0, AK_PANELS, 0, 18, 1), (AK_Q8_0, AK_PANELS, 7, 18, 1)], [(AK_F32, AK_PANELS, 4, 2, 4)],
            (1 ... 4).map { (AK_Q8_0, AK_PANELS, 10 * $0, 3, 1) },
        ]
        for run in runs {
            let matrices = run.map { matrix($0.0, $0.1, panels: $0.panels, blocks: $0.blocks, bundle: $0.bundle) }
            let shared = workspace.items(run.count, tokens: tokens) { (matrices[$0], run[$0].panels) }
            defer { withExtendedLifetime(shared) {} }
            #expect(shared.products.count == run.count)
            var bytes: [Int] = []   // of each item
            for (product, part) in zip(shared.products, run) {
                var next = 0
                for piece in 0 ..< product.count {
                    let panels = product.range(piece)
                    #expect(panels.lowerBound == next && !panels.isEmpty)
                    if tokens <= 4 { #expect(panels.lowerBound % part.bundle == 0) }
                    next = panels.upperBound
                    bytes.append(panels.count * part.blocks * Int(ak_panel_bytes(part.0, 32)))
                }
                #expect(next == part.panels)
            }
            guard let ends = shared.ends else { continue }
            var begin = 0
            let total = bytes.reduce(0, +), largest = bytes.max() ?? 0
            for thread in 0 ..< threads {
                let end = Int(ends[thread])
                #expect(end >= begin && (thread < threads - 1 || end == bytes.count))
                #expect(bytes[begin ..< end].reduce(0, +) <= total / threads + 2 * largest, "thread \(thread) of \(threads), \(run)")
                begin = end
            }
        }
    }

    // A failure means that threads have nothing to do while another multiplies a matrix of which plans leave inputs out, that bundles are larger than what
    // the kernels read at once, or that what is packed depends on how many threads packed it.
    @Test("bundles can be shared out", arguments: kernelSets, [AK_Q8_0, AK_Q4_1, AK_F16])
    func bundlesCanBeSharedOut(kernels: String, type: ak_type) throws {
        let set = try KernelSet(named: kernels), most = Int(withUnsafePointer(to: set.table) { ak_bundle_panels($0, type) })
        let packers = try [1, 2, 3, 4, 8, 64].map { WeightPacker(kernels: set, pool: try ThreadPool(threads: $0)) }
        for panels in [1, 3, 36, 128, 256] {
            let bundle = packers[0].panelsPerBundle(type, panels: panels)
            #expect(bundle >= 1 && bundle <= most)
            let bundles = (panels + bundle - 1) / bundle
            #expect(bundles >= 4 || bundle <= 4, "\(panels) panels in bundles of \(bundle)")
            for packer in packers { #expect(packer.panelsPerBundle(type, panels: panels) == bundle) }
        }
    }
}
