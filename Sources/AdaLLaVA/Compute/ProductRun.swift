import AdaKernels

/// Products that read the same activations, ready to run as often as there are such activations: work items and addresses are found once, for a
/// decode runs the same products at every token, and serial work between two products stalls every thread.
package final class ProductRun {
    /// What becomes of a product's sums while they are in their worker's cache.
    package enum Combination: BitwiseCopyable {
        case none
        /// Of two products: `first = silu(first) * second`.
        case gated
        case activation(ActivationFunction)
    }

    private let items: Int
    private let call: UnsafeMutablePointer<Call>
    private let pool: ThreadPool
    private let products: KernelProducts
    private let shared: RunItems

    /// - Parameter products: at least one, whose weights take the same types of activations and whose parts have the same rows.
    package init(_ products: [Product], combining combination: Combination = .none, _ workspace: Workspace) {
        pool = workspace.pool
        var isGated = false
        if case .gated = combination { isGated = true }
        let kernel = KernelProducts(products, workspace)
        let rows = (products.first?.parts ?? []).map(\.rows)
        let tokens = rows.reduce(0) { $0 + $1.count }
        // Gate and up are cut alike.
        shared = workspace.items(isGated ? 1 : products.count, tokens: tokens) { (kernel.products[$0].matrix, kernel.products[$0].panelCount) }
        kernel.set(shared, isShared: isGated)
        self.products = kernel
        let perPart = isGated ? kernel.products[0].items.count : (0 ..< kernel.count).reduce(0) { $0 + kernel.products[$1].items.count }
        let type = products.first.map { workspace.kernels.activationType($0.linear.weight, .chunk) } ?? AK_F32
        var rowParts = 1
        if case .none = combination, rows.count == 1 { rowParts = workspace.rowParts(tokens, type) }
        items = perPart * rowParts
        call = .allocate(capacity: 1)
        call.initialize(
            to: Call(
                products: kernel.products, count: kernel.count, items: perPart, rowParts: rowParts, combination: combination,
                kernels: workspace.kernels.table, scratch: workspace.scratchAddresses))
    }

    deinit { call.deallocate() }

    /// - Parameter activations: of the rows that the products' parts name.
    package func callAsFunction(_ activations: RowActivations) {
        call.pointee.activations = activations
        pool.run(items, ends: shared.ends, call) { context, item, worker in
            guard let call = context?.assumingMemoryBound(to: Call.self) else { return }
            let (item, scratch) = (Int(item), call.pointee.scratch[Int(worker)])
            switch call.pointee.combination {
            case .none: Call.run(call, item, scratch)
            case .gated: Call.runGated(call, item, scratch)
            case .activation(let activation): Call.runActivated(call, activation, item, scratch)
            }
        }
    }

    /// Plain numbers and addresses, which threads read without counting references.
    private struct Call: BitwiseCopyable {
        let products: UnsafeMutablePointer<KernelProduct>
        let count: Int
        /// Of each part of the rows.
        let items: Int
        let rowParts: Int
        let combination: Combination
        let kernels: ak_kernels
        let scratch: UnsafeMutablePointer<UnsafeMutableRawPointer>
        var activations = RowActivations(ak_activations(), role: .single)

        /// One work item of a product, for all of its parts: the first reads its panels from memory, the others from the cache.
        @inline(__always)
        private static func multiply(
            _ call: UnsafeMutablePointer<Call>, _ product: UnsafeMutablePointer<KernelProduct>, _ item: Int, next: KernelProduct?, _ nextItem: Int,
            _ scratch: UnsafeMutableRawPointer
        ) {
            for part in 0 ..< product.pointee.partCount {
                let rows = product.pointee.parts + part
                var activations = call.pointee.activations.rows(from: rows.pointee.row, count: rows.pointee.count)
                product.pointee.run(
                    call.pointee.kernels, &activations, part: part, item: item, next: part == product.pointee.partCount - 1 ? next : nil,
                    nextItem: nextItem, scratch: scratch)
            }
        }

        static func run(_ call: UnsafeMutablePointer<Call>, _ item: Int, _ scratch: UnsafeMutableRawPointer) {
            let (products, count) = (call.pointee.products, call.pointee.count)
            var (index, piece) = (0, call.pointee.rowParts == 1 ? item : item % call.pointee.items)
            while piece >= products[index].items.count {
                piece -= products[index].items.count
                index += 1
            }
            // A worker usually takes one item after the other.
            let isLast = piece + 1 == products[index].items.count && index + 1 < count
            let next = isLast ? products[index + 1] : products[index], nextItem = isLast ? 0 : piece + 1
            if call.pointee.rowParts == 1 { return multiply(call, products + index, piece, next: next, nextItem, scratch) }
            let part = products[index].parts
            var activations = call.pointee.activations.rows(from: part.pointee.row, count: part.pointee.count)
            let rows = activations.part(item / call.pointee.items, of: call.pointee.rowParts)
            activations = activations.rows(from: rows.lowerBound, count: rows.count)
            products[index].run(
                call.pointee.kernels, &activations, item: piece, next: next, nextItem: nextItem, scratch: scratch,
                into: (products[index].output + (part.pointee.row + rows.lowerBound) * products[index].stride, products[index].stride))
        }

        static func runGated(_ call: UnsafeMutablePointer<Call>, _ item: Int, _ scratch: UnsafeMutableRawPointer) {
            let (gate, up) = (call.pointee.products, call.pointee.products + 1)
            multiply(call, gate, item, next: up.pointee, item, scratch)
            multiply(call, up, item, next: gate.pointee, item + 1, scratch)
            for part in 0 ..< gate.pointee.partCount { gate.pointee.combine(up.pointee, call.pointee.kernels, part: part, item: item) }
        }

        static func runActivated(
            _ call: UnsafeMutablePointer<Call>, _ activation: ActivationFunction, _ item: Int, _ scratch: UnsafeMutableRawPointer
        ) {
            let product = call.pointee.products
            multiply(call, product, item, next: product.pointee, item + 1, scratch)
            for part in 0 ..< product.pointee.partCount { product.pointee.activate(activation, part: part, item: item) }
        }
    }
}

extension Workspace {
    /// Parts that the rows of a product are shared out in, beside its panels: one for each thread where tiles are so fast that what threads pass each
    /// other costs time. A thread then adds to the rows whose norm it makes, which are in its own cache; weights that are rounded are rounded in each.
    fileprivate func rowParts(_ tokens: Int, _ type: ak_type) -> Int {
        kernels.tuning.bf16_tiles != 0 && (type == AK_BF16 || type == AK_I8) && tokens >= 4 * Workspace.rowsAtOnce * pool.threads ? pool.threads : 1
    }
}

extension ak_activations {
    /// The rows of one of several parts: those that the same thread gets of ``Workspace/forRows(_:_:)``.
    func part(_ part: Int, of parts: Int) -> Range<Int> {
        let (rows, step) = (Int(tokens), Workspace.rowsAtOnce)
        let steps = (rows + step - 1) / step
        func start(_ part: Int) -> Int { min(steps * part / parts * step, rows) }
        return start(part) ..< start(part + 1)
    }
}
