import AdaKernels

extension Workspace {
    /// ``multiply(_:norm:role:_:)`` for a map of an image: many rows, and often fewer panels of outputs than there are threads.
    ///
    /// Work items of large maps are rows, so that an item's inputs and outputs stay in its worker's cache and any number of panels keeps all
    /// threads busy; those of small maps are panels. The sums are the same either way.
    func multiplyMap(_ x: Tensor, _ product: Product) {
        let matrix = product.linear.weight.matrix
        let rowsPerItem = Workspace.rowsPerItem(stride: x.stride)
        guard x.rows >= 4 * pool.threads * Workspace.tileRows, product.parts.allSatisfy({ $0.panels == nil && $0.blocks == nil }) else {
            return multiply(x, role: .chunk, [product])
        }
        let activations = convert(x, 0 ..< x.rows, to: kernels.activationType(product.linear.weight, .chunk), inputs.chunk)
        reserveScratch(withUnsafePointer(to: matrix) { ak_matmul_scratch($0) })
        let (kernels, scratch, output) = (kernels.table, scratchAddresses, product.output)
        let (bias, flags) = (product.linear.bias.map { UnsafePointer($0.data) }, product.flags)
        let panels = Int(matrix.panels)
        let list = identity(panels), all = list.address
        pool.run((x.rows + rowsPerItem - 1) / rowsPerItem) { item, worker in
            let first = item * rowsPerItem
            var part = activations.rows(from: first, count: min(rowsPerItem, x.rows - first))
            withUnsafePointer(to: matrix) { matrix in
                kernels.matmul(
                    output.data + first * output.stride, output.stride, &part, matrix, bias, all, Int32(panels), nil,
                    matrix.pointee.blocks, flags, nil, scratch[worker])
            }
        }
        withExtendedLifetime((product, list)) {}
    }

    /// Rows that the kernels' tiles divide.
    private static let tileRows = 24

    /// Rows of a work item: about 64 kB of inputs, in whole tiles.
    private static func rowsPerItem(stride: Int) -> Int {
        min(max(16384 / max(stride, 1) / tileRows, 1), 16) * tileRows
    }
}

extension ak_activations {
    /// Some of the rows; the values are shared.
    func rows(from first: Int, count: Int) -> ak_activations {
        var part = self
        part.tokens = Int32(count)
        part.data = data?.advanced(by: first * stride * type.activationBytes)
        part.scales = scales?.advanced(by: first * type.scalesPerRow(stride: Int(blocks * AK_BLOCK)))
        part.sums = sums?.advanced(by: first * Int(blocks))
        return part
    }
}
