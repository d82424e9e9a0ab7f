import AdaKernels

/// Products that read the same activations, prepared to run any number of times: decode runs the same products at every token, and serial work between
/// two products stalls every thread, so work items and addresses are found once.
package final class ProductRun {
    /// Operation on a product's sums while they are in their worker's cache.
    package enum Combination: BitwiseCopyable {
        case none
        /// Of two products: `first = gate(first) * second`.
        case gated(Gate)
        case activation(ActivationFunction)
    }

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
        // Gate and up have the same work items.
        shared = workspace.items(isGated ? 1 : products.count, tokens: tokens) { (kernel.products[$0].matrix.pointee, kernel.products[$0].panelCount) }
        kernel.set(shared, isShared: isGated)
        self.products = kernel
        let perPart = isGated ? kernel.products[0].items.count : (0 ..< kernel.count).reduce(0) { $0 + kernel.products[$1].items.count }
        let type = products.first.map { workspace.kernels.activationType($0.linear.weight, .chunk) } ?? AK_F32
        var rowParts = 1
        if case .none = combination, rows.count == 1 { rowParts = workspace.rowParts(tokens, type) }
        call = .allocate(capacity: 1)
        call.initialize(
            to: Call(
                products: kernel.products, count: kernel.count, items: perPart, rowParts: rowParts, ends: shared.ends, combination: combination,
                kernels: workspace.kernels.functions, scratch: workspace.scratchAddresses, gathered: workspace.gatheredAddresses))
    }

    deinit { call.deallocate() }

    func add(to lines: inout CacheLines) {
        lines.add(self)
        lines.add(call, bytes: MemoryLayout<Call>.stride)
        products.add(to: &lines)
    }

    /// - Parameter activations: of the rows that the products' parts name.
    package func callAsFunction(_ activations: RowActivations) {
        var running = Running(call: call, activations: activations)
        pool.run(call.pointee.items * call.pointee.rowParts, ends: call.pointee.ends, &running) { context, item, worker in
            guard let running = context?.assumingMemoryBound(to: Running.self) else { return }
            let (item, worker) = (Int(item), Int(worker))
            switch running.pointee.call.pointee.combination {
            case .none: running.pointee.run(item, worker)
            case .gated(let gate): running.pointee.runGated(gate, item, worker)
            case .activation(let activation): running.pointee.runActivated(activation, item, worker)
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
        let ends: UnsafePointer<Int32>?
        let combination: Combination
        let kernels: UnsafePointer<ak_kernels>
        /// Of each worker.
        let scratch, gathered: UnsafeMutablePointer<UnsafeMutableRawPointer>
    }

    /// A call with the activations of this time.
    private struct Running: BitwiseCopyable {
        let call: UnsafePointer<Call>
        let activations: RowActivations

        /// One work item of a product, for all of its parts: the first reads its panels from memory, the others from the cache.
        @inline(__always)
        private func multiply(
            _ product: UnsafePointer<KernelProduct>, _ item: Int, next: UnsafePointer<KernelProduct>, _ nextItem: Int, _ worker: Int
        ) {
            let (kernels, scratch) = (call.pointee.kernels, call.pointee.scratch[worker])
            for part in 0 ..< product.pointee.partCount {
                let rows = product.pointee.parts + part
                if rows.pointee.list != nil {
                    product.pointee.runGathered(
                        kernels, activations, part: part, item: item, next: next, nextItem: nextItem, scratch: scratch,
                        gathered: call.pointee.gathered[worker])
                    continue
                }
                var activations = activations.rows(from: rows.pointee.row, count: rows.pointee.count)
                product.pointee.run(kernels, &activations, part: part, item: item, next: next, nextItem: nextItem, scratch: scratch)
            }
        }

        func run(_ item: Int, _ worker: Int) {
            let count = call.pointee.count
            var product = UnsafePointer(call.pointee.products), (index, productItem) = (0, call.pointee.rowParts == 1 ? item : item % call.pointee.items)
            while productItem >= product.pointee.items.count {
                productItem -= product.pointee.items.count
                index += 1
                product += 1
            }
            // A worker usually takes one item after the other.
            let isLast = productItem + 1 == product.pointee.items.count && index + 1 < count
            let next = isLast ? product + 1 : product, nextItem = isLast ? 0 : productItem + 1
            if call.pointee.rowParts == 1 { return multiply(product, productItem, next: next, nextItem, worker) }
            let part = product.pointee.parts
            var activations = activations.rows(from: part.pointee.row, count: part.pointee.count)
            let rows = activations.part(item / call.pointee.items, of: call.pointee.rowParts)
            activations = activations.rows(from: rows.lowerBound, count: rows.count)
            product.pointee.run(
                call.pointee.kernels, &activations, item: productItem, next: next, nextItem: nextItem, scratch: call.pointee.scratch[worker],
                into: (product.pointee.output + (part.pointee.row + rows.lowerBound) * product.pointee.stride, product.pointee.stride))
        }

        func runGated(_ function: Gate, _ item: Int, _ worker: Int) {
            let gate = UnsafePointer(call.pointee.products), up = gate + 1
            multiply(gate, item, next: up, item, worker)
            multiply(up, item, next: gate, item + 1, worker)
            for part in 0 ..< gate.pointee.partCount { gate.pointee.combine(function, up, call.pointee.kernels, part: part, item: item) }
        }

        func runActivated(_ activation: ActivationFunction, _ item: Int, _ worker: Int) {
            let product = UnsafePointer(call.pointee.products)
            multiply(product, item, next: product, item + 1, worker)
            for part in 0 ..< product.pointee.partCount { product.pointee.activate(activation, part: part, item: item) }
        }
    }
}

extension Workspace {
    /// Parts that the rows of a product are divided into, besides its panels: one for each thread if tiles are so fast that moving activations between
    /// cores costs time. A thread then adds to the rows whose norm it computes, which are in its own cache; but each part converts the weights again.
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
