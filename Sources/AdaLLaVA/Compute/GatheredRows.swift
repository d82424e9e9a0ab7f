import AdaKernels

extension [ProductPart] {
    /// Parts of a product whose rows are single, by the panels that they compute. Each panel is multiplied once with all rows that keep it, as a tile,
    /// because row by row it would be read as often; rows that are not adjacent are gathered.
    /// - Parameter count: the product's panels.
    func mergedByPanels(_ count: Int) -> [ProductPart] {
        if self.count < 2 { return self }
        var keepers = [[Int]](repeating: [], count: count)
        for (index, part) in enumerated() {
            for panel in part.panels?.indices ?? [Int32](0 ..< Int32(count)) { keepers[Int(panel)].append(index) }
        }
        var order: [[Int]] = [], panels: [[Int]: [Int32]] = [:]
        for (panel, parts) in keepers.enumerated() where !parts.isEmpty {
            if panels[parts] == nil { order.append(parts) }
            panels[parts, default: []].append(Int32(panel))
        }
        return order.map { parts in
            let listed = panels[parts] ?? []
            return ProductPart(rows: parts.flatMap { [Int](self[$0].rows) }, panels: listed.count == count ? nil : IndexList(listed), blocks: nil)
        }
    }

    /// Rows from which a part is multiplied separately: a tile of its own then costs less than the blocks that only other rows keep.
    private static var rowsOfTheirOwn: Int { 4 }

    /// Parts of a product whose rows are single and that differ in the blocks they read: those of few rows together, over the blocks that any of them
    /// keeps. A row's activations must be zero in all other blocks, which then add nothing, not even in the last bit.
    func mergedByBlocks() -> [ProductPart] {
        let few = filter { $0.rows.count < Self.rowsOfTheirOwn }
        if few.count < 2 { return self }
        let blocks = few.contains { $0.blocks == nil } ? nil : IndexList(Set(few.flatMap { $0.blocks?.indices ?? [] }).sorted())
        return [ProductPart(rows: few.flatMap { [Int]($0.rows) }, panels: nil, blocks: blocks)] + filter { $0.rows.count >= Self.rowsOfTheirOwn }
    }
}

extension ProductPart {
    /// - Parameter rows: ascending or not, at least one.
    fileprivate init(rows: [Int], panels: IndexList?, blocks: IndexList?) {
        let rows = rows.sorted(), range = (rows.first ?? 0) ..< (rows.last ?? -1) + 1
        self.init(rows: range, list: range.count == rows.count ? nil : IndexList(rows.map { Int32($0) }), panels: panels, blocks: blocks)
    }
}

extension RowActivations {
    /// Some rows of one role, copied so that they are adjacent.
    /// - Parameter memory: as much as ``KernelProduct/gatheredBytes(rows:_:)`` says.
    /// - Returns: the activations, and the memory after them.
    fileprivate func gather(_ part: UnsafePointer<KernelPart>, into memory: UnsafeMutableRawPointer) -> (ak_activations, UnsafeMutableRawPointer) {
        let count = part.pointee.count
        var gathered = rows(from: part.pointee.row, count: 1)
        let bytes = gathered.stride * gathered.type.activationBytes
        let scales = gathered.scales == nil ? 0 : gathered.type.scalesPerRow(stride: gathered.stride) * MemoryLayout<Float>.stride
        let sums = gathered.sums == nil ? 0 : Int(gathered.blocks) * MemoryLayout<Int32>.stride
        let (scaleMemory, sumMemory) = (memory + count * bytes, memory + count * (bytes + scales))
        for index in 0 ..< count {
            let row = rows(from: part.pointee.row(index), count: 1)
            if let data = row.data { (memory + index * bytes).copyMemory(from: data, byteCount: bytes) }
            if let from = row.scales { (scaleMemory + index * scales).copyMemory(from: from, byteCount: scales) }
            if let from = row.sums { (sumMemory + index * sums).copyMemory(from: from, byteCount: sums) }
        }
        gathered.tokens = Int32(count)
        gathered.data = UnsafeRawPointer(memory)
        if scales > 0 { gathered.scales = UnsafePointer(scaleMemory.assumingMemoryBound(to: Float.self)) }
        if sums > 0 { gathered.sums = UnsafePointer(sumMemory.assumingMemoryBound(to: Int32.self)) }
        return (gathered, memory + (count * (bytes + scales + sums) + 63) / 64 * 64)
    }
}

extension KernelProduct {
    /// Memory for gathered rows' activations and outputs.
    static func gatheredBytes(rows: Int, _ matrix: ak_matrix) -> Int {
        // Values of at most four bytes, with a scale and a sum for each block.
        let perRow = Int(matrix.blocks) * (Int(AK_BLOCK) * 4 + 8) + Int(matrix.panels * AK_PANEL) * MemoryLayout<Float>.stride
        return rows * perRow + 128
    }

    /// One work item of a part whose rows are not adjacent: its activations are gathered, and its outputs are scattered to their rows.
    func runGathered(
        _ kernels: UnsafePointer<ak_kernels>, _ activations: RowActivations, part: Int, item: Int, next: UnsafePointer<KernelProduct>, nextItem: Int,
        scratch: UnsafeMutableRawPointer, gathered: UnsafeMutableRawPointer
    ) {
        let own = UnsafePointer(parts + part), range = panels(of: own, item: item)
        if range.isEmpty { return }
        var (rows, memory) = activations.gather(own, into: gathered)
        let (first, count) = (Int(own.pointee.panels[range.lowerBound] * AK_PANEL), own.pointee.count)
        let width = Int((own.pointee.panels[range.upperBound - 1] + 1) * AK_PANEL) - first
        let values = memory.assumingMemoryBound(to: Float.self)
        if flags & Int32(AK_ACCUMULATE) != 0 {
            for index in 0 ..< count { (values + index * width).update(from: output + own.pointee.row(index) * stride + first, count: width) }
        }
        run(kernels, &rows, part: part, item: item, next: next, nextItem: nextItem, scratch: scratch, into: (values - first, width))
        forRuns(own.pointee.panels, range) { columns in
            for index in 0 ..< count {
                (output + own.pointee.row(index) * stride + columns.lowerBound)
                    .update(from: values + index * width + columns.lowerBound - first, count: columns.count)
            }
        }
    }
}
