import AdaKernels

/// A list of panels or blocks at a fixed address, so that kernels on any thread can read it.
package final class IndexList: @unchecked Sendable {
    let count: Int
    let address: UnsafePointer<Int32>
    /// The indices at the list's beginning that follow one another.
    let firstRun: Range<Int>
    private let memory: AlignedMemory

    init(_ indices: [Int32]) {
        count = indices.count
        let first = Int(indices.first ?? 0)
        firstRun = first ..< first + (indices.enumerated().first { Int($1) != first + $0 }?.offset ?? indices.count)
        memory = AlignedMemory(byteCount: indices.count * MemoryLayout<Int32>.stride)
        let values = memory.address.bindMemory(to: Int32.self, capacity: max(indices.count, 1))
        for (position, index) in indices.enumerated() { values[position] = index }
        address = UnsafePointer(values)
    }

    var indices: [Int32] { Array(UnsafeBufferPointer(start: address, count: count)) }
}

/// Some rows of a batch, and the part of a product that is computed for them.
struct ProductPart {
    /// From the first row to the last.
    let rows: Range<Int>
    /// The rows, ascending, where they do not follow one another; `nil`: all of ``rows``.
    var list: IndexList?
    /// Panels of 16 outputs to compute; `nil` computes all.
    var panels: IndexList?
    /// Blocks of 32 inputs to read; `nil` reads all.
    var blocks: IndexList?
}

/// One matrix product of a run: `output (+)= x · weightᵀ + bias`, for each part over some panels of outputs and some blocks of inputs. A panel is read
/// from memory once for all parts.
package struct Product {
    let linear: Linear
    /// `[rows of the batch, outputs]`.
    let output: Tensor
    /// Parts by rows; the rows of two parts are distinct.
    let parts: [ProductPart]
    var accumulate = false
    /// Clamp the result to 0 … 6.
    var relu6 = false

    /// One part: all rows of `output`.
    package init(
        linear: Linear, output: Tensor, panels: IndexList? = nil, blocks: IndexList? = nil, accumulate: Bool = false, relu6: Bool = false
    ) {
        self.init(
            linear: linear, output: output, parts: [ProductPart(rows: 0 ..< output.rows, panels: panels, blocks: blocks)], accumulate: accumulate,
            relu6: relu6)
    }

    init(linear: Linear, output: Tensor, parts: [ProductPart], accumulate: Bool = false, relu6: Bool = false) {
        (self.linear, self.output, self.parts, self.accumulate, self.relu6) = (linear, output, parts, accumulate, relu6)
    }

    /// The same product for some rows of the output, of a product whose one part is all rows.
    func rows(_ range: Range<Int>) -> Product { Product(linear: linear, output: output.rows(range), accumulate: accumulate, relu6: relu6) }

    var flags: Int32 { (accumulate ? Int32(AK_ACCUMULATE) : 0) | (relu6 ? Int32(AK_RELU6) : 0) }

    /// Panels that some part computes, ascending.
    func panels(identity: IndexList) -> (list: IndexList, count: Int) {
        let all = Int(linear.weight.matrix.panels)
        if let first = parts.first?.panels, parts.allSatisfy({ $0.panels === first }) { return (first, first.count) }
        if parts.contains(where: { $0.panels == nil }) { return (identity, all) }
        let union = Set(parts.flatMap { $0.panels?.indices ?? [] }).sorted()
        return (IndexList(union), union.count)
    }
}

/// A part of a product as plain numbers and addresses.
struct KernelPart: BitwiseCopyable {
    /// First row in the batch, and how many.
    let row, count: Int
    /// The rows where they do not follow one another.
    let list: UnsafePointer<Int32>?
    let panels: UnsafePointer<Int32>
    let blocks: UnsafePointer<Int32>?
    let blockCount: Int
    /// Where each work item begins in the part's own list of panels, and where the last one ends.
    var starts: UnsafePointer<Int32>?

    @inline(__always)
    func row(_ index: Int) -> Int { list.map { Int($0[index]) } ?? row + index }
}

/// A product as plain numbers and addresses, which workers read without counting references to the objects that
/// own the memory. Valid as long as the ``KernelProducts`` it is of.
struct KernelProduct: BitwiseCopyable {
    let output: UnsafeMutablePointer<Float>
    let stride: Int
    let matrix: UnsafePointer<ak_matrix>
    let bias: UnsafePointer<Float>?
    let flags: Int32
    /// Panels that some part computes.
    let panels: UnsafePointer<Int32>
    let panelCount: Int
    let parts: UnsafeMutablePointer<KernelPart>
    let partCount: Int
    /// Work items: ranges of `panels`.
    var items = WorkItems.none

    /// The columns from the first of some listed panels to the last.
    func columns(_ range: Range<Int>) -> Range<Int> {
        range.isEmpty ? 0 ..< 0 : Int(panels[range.lowerBound] * AK_PANEL) ..< Int((panels[range.upperBound - 1] + 1) * AK_PANEL)
    }

    /// The panels of one part in a work item, as a range of the part's list.
    @inline(__always)
    func panels(of part: UnsafePointer<KernelPart>, item: Int) -> Range<Int> {
        guard let starts = part.pointee.starts else { return items.range(item) }
        return item < items.count ? Int(starts[item]) ..< Int(starts[item + 1]) : 0 ..< 0
    }

    /// Computes one work item of one part.
    /// - Parameters:
    ///   - activations: of the part's rows.
    ///   - next: the product that the same worker probably computes next, and its item; `nil` prefetches nothing.
    ///   - output: memory instead of the product's own output, with `stride` columns.
    @inline(__always)
    func run(
        _ kernels: UnsafePointer<ak_kernels>, _ activations: UnsafePointer<ak_activations>, part: Int = 0, item: Int,
        next: UnsafePointer<KernelProduct>?, nextItem: Int, scratch: UnsafeMutableRawPointer,
        into output: (data: UnsafeMutablePointer<Float>, stride: Int)? = nil
    ) {
        let own = UnsafePointer(parts + part)
        let range = panels(of: own, item: item)
        if range.isEmpty { return }
        let (output, stride) = output ?? (self.output + own.pointee.row * self.stride, self.stride)
        guard let next else {
            return kernels.pointee.matmul(
                output, stride, activations, matrix, bias, own.pointee.panels + range.lowerBound, Int32(range.count), own.pointee.blocks,
                Int32(own.pointee.blockCount), flags, nil, scratch)
        }
        // Panels that any part computes: the first part reads them from memory.
        let nextRange = next.pointee.items.range(nextItem)
        var upcoming = ak_upcoming(
            weight: next.pointee.matrix, panels: next.pointee.panels + nextRange.lowerBound, panel_count: Int32(nextRange.count))
        kernels.pointee.matmul(
            output, stride, activations, matrix, bias, own.pointee.panels + range.lowerBound, Int32(range.count), own.pointee.blocks,
            Int32(own.pointee.blockCount), flags, &upcoming, scratch)
    }

    /// `output = gate(output) * up.output` of one part's rows in a work item.
    func combine(_ gate: Gate, _ up: UnsafePointer<KernelProduct>, _ kernels: UnsafePointer<ak_kernels>, part: Int, item: Int) {
        let own = UnsafePointer(parts + part)
        forRuns(own.pointee.panels, panels(of: own, item: item)) { columns in
            for index in 0 ..< own.pointee.count {
                let row = own.pointee.row(index)
                gate(
                    kernels, output + row * stride + columns.lowerBound, up.pointee.output + row * up.pointee.stride + columns.lowerBound, columns.count)
            }
        }
    }

    /// `output = activation(output)` of one part's rows in a work item.
    func activate(_ activation: ActivationFunction, part: Int, item: Int) {
        let own = UnsafePointer(parts + part)
        forRuns(own.pointee.panels, panels(of: own, item: item)) { columns in
            for index in 0 ..< own.pointee.count { activation(output + own.pointee.row(index) * stride + columns.lowerBound, columns.count) }
        }
    }

    /// Calls `body` with the columns of some listed panels, those that are adjacent together.
    @inline(__always)
    func forRuns(_ panels: UnsafePointer<Int32>, _ range: Range<Int>, _ body: (Range<Int>) -> Void) {
        var start = range.lowerBound
        while start < range.upperBound {
            var end = start + 1
            while end < range.upperBound, panels[end] == panels[end - 1] + 1 { end += 1 }
            body(Int(panels[start] * AK_PANEL) ..< Int((panels[end - 1] + 1) * AK_PANEL))
            start = end
        }
    }
}

/// Products in the kernels' terms, and everything their addresses point to.
final class KernelProducts {
    let count: Int
    let products: UnsafeMutablePointer<KernelProduct>
    private let parts: UnsafeMutablePointer<KernelPart>
    private let matrices: UnsafeMutablePointer<ak_matrix>
    private let partCount: Int
    private let sources: [Product]
    private let identity: IndexList
    private var lists: [IndexList] = []
    private var items: RunItems?

    init(_ sources: [Product], _ workspace: Workspace) {
        self.sources = sources
        count = sources.count
        partCount = sources.reduce(0) { $0 + $1.parts.count }
        identity = workspace.identity(sources.reduce(0) { max($0, Int($1.linear.weight.matrix.panels)) })
        products = .allocate(capacity: max(count, 1))
        parts = .allocate(capacity: max(partCount, 1))
        matrices = .allocate(capacity: max(count, 1))
        var next = parts
        for (index, source) in sources.enumerated() {
            let matrix = source.linear.weight.matrix
            (matrices + index).initialize(to: matrix)
            workspace.reserveScratch(ak_matmul_scratch(matrices + index))
            let (list, panelCount) = source.panels(identity: identity)
            if list !== identity { lists.append(list) }
            for part in source.parts {
                if let list = part.list { workspace.reserveGathered(KernelProduct.gatheredBytes(rows: list.count, matrix)) }
                next.initialize(
                    to: KernelPart(
                        row: part.rows.lowerBound, count: part.list?.count ?? part.rows.count, list: part.list?.address, panels: part.panels?.address ?? identity.address,
                        blocks: part.blocks?.address, blockCount: part.blocks?.count ?? Int(matrix.blocks)))
                next += 1
            }
            (products + index).initialize(
                to: KernelProduct(
                    output: source.output.data, stride: source.output.stride, matrix: matrices + index,
                    bias: source.linear.bias.map { UnsafePointer($0.data) }, flags: source.flags, panels: list.address, panelCount: panelCount, parts: next - source.parts.count,
                    partCount: source.parts.count))
        }
    }

    deinit {
        products.deallocate()
        parts.deallocate()
        matrices.deallocate()
    }

    func add(to lines: inout CacheLines) {
        lines.add(products, bytes: count * MemoryLayout<KernelProduct>.stride)
        lines.add(parts, bytes: partCount * MemoryLayout<KernelPart>.stride)
        lines.add(matrices, bytes: count * MemoryLayout<ak_matrix>.stride)
    }

    /// Divides the products into work items; several products may share the first one's.
    func set(_ items: RunItems, isShared: Bool) {
        self.items = items
        for (index, source) in sources.enumerated() {
            let own = items.products[isShared ? 0 : index]
            products[index].items = own
            let union = products[index].panels
            for (number, part) in source.parts.enumerated() {
                let kernelPart = products[index].parts + number
                if kernelPart.pointee.panels == union { continue }
                // The part's panels are some of the union's, so its items start elsewhere.
                let listed = part.panels?.indices ?? []
                var starts: [Int32] = [0], next = 0
                for item in 0 ..< own.count {
                    let range = own.range(item)
                    let last = range.isEmpty ? -1 : union[range.upperBound - 1]
                    while next < listed.count, listed[next] <= last { next += 1 }
                    starts.append(Int32(next))
                }
                let list = IndexList(starts)
                lists.append(list)
                kernelPart.pointee.starts = list.address
            }
        }
    }
}

extension Workspace {
    /// Runs products of the same rows, which all have one role, or of a norm of them.
    func multiply(_ x: Tensor, norm: Norm? = nil, role: RowRole, _ products: [Product]) {
        multiply(x, norm: norm, RowsByRole(x.rows, role), products)
    }

    /// Runs products that read the same rows, or a norm of them; work items are panels.
    func multiply(_ x: Tensor, norm: Norm? = nil, _ rows: RowsByRole, _ products: [Product]) {
        guard let first = products.first else { return }
        // All weights of a layer nearly always have one type.
        let same = products.filter { haveOneType(first.linear.weight, $0.linear.weight) }
        multiply(convert(x, norm: norm, for: first.linear.weight, rows, inputs), same)
        if same.count < products.count {
            multiply(x, norm: norm, rows, products.filter { !haveOneType(first.linear.weight, $0.linear.weight) })
        }
    }

    /// Runs products that read the same activations, each in its activation type.
    func multiply(_ activations: RowActivations, _ products: [Product]) { ProductRun(products, self)(activations) }

    /// Whether products with both matrices take activations of one type in every role.
    func haveOneType(_ a: WeightMatrix, _ b: WeightMatrix) -> Bool {
        kernels.activationType(a, .chunk) == kernels.activationType(b, .chunk) && kernels.activationType(a, .single) == kernels.activationType(b, .single)
    }
}
