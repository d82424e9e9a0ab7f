import AdaKernels

/// Products that read the same activations, ready to run as often as there are such activations: pieces, shares and addresses are found once, for a
/// decode runs the same products at every token, and all threads but one wait while something else is done.
final class ProductRun {
    /// The type of activations that these products take.
    let type: ak_type
    private let items: Int
    private let call: UnsafeMutablePointer<Call>
    private let pool: ThreadPool
    // What the addresses in `call` point to.
    private let products: [Product]
    private let all: IndexList
    private let pieces: RunPieces

    /// One product after the other.
    /// - Parameters:
    ///   - products: at least one, whose weights take the same type of activations.
    ///   - tokens: rows of the activations.
    convenience init(_ products: [Product], tokens: Int, _ backend: Backend) { self.init(products, isGated: false, tokens: tokens, backend) }

    /// `gate = silu(gate) * up` of two products of the same panels: both products of a panel are made by the same worker, then combined while they are
    /// in its cache.
    convenience init(gate: Product, up: Product, tokens: Int, _ backend: Backend) { self.init([gate, up], isGated: true, tokens: tokens, backend) }

    private init(_ products: [Product], isGated: Bool, tokens: Int, _ backend: Backend) {
        self.products = products
        type = products.first?.linear.weight.activationType(backend, rows: tokens) ?? AK_F32
        pool = backend.pool
        for product in products { backend.reserveScratch(for: product) }
        let all = backend.identity(products.reduce(0) { max($0, Int($1.linear.weight.matrix.panels)) })
        let calls = UnsafeMutablePointer<KernelProduct>.allocate(capacity: products.count)
        for (index, product) in products.enumerated() { (calls + index).initialize(to: KernelProduct(product, identity: all.address)) }
        // Gate and up are cut alike.
        pieces = backend.pieces(isGated ? 1 : products.count, tokens: tokens) { (calls[$0].matrix, calls[$0].panelCount) }
        for index in products.indices { calls[index].pieces = pieces.products[isGated ? 0 : index] }
        let items = isGated ? calls[0].items : products.indices.reduce(0) { $0 + calls[$1].items }
        let rowParts = isGated ? 1 : backend.rowParts(tokens, type)
        self.items = items * rowParts
        self.all = all
        call = .allocate(capacity: 1)
        call.initialize(
            to: Call(
                products: calls, count: products.count, items: items, rowParts: rowParts, isGated: isGated, kernels: backend.kernels,
                scratch: backend.scratchAddresses, activations: ak_activations()))
    }

    deinit {
        call.pointee.products.deallocate()
        call.deallocate()
    }

    /// - Parameter activations: of ``type``, as many rows as were said.
    func callAsFunction(_ activations: ak_activations) {
        call.pointee.activations = activations
        pool.run(items, ends: pieces.ends, call) { context, item, worker in
            guard let call = context?.assumingMemoryBound(to: Call.self) else { return }
            let (item, scratch) = (Int(item), call.pointee.scratch[Int(worker)])
            if call.pointee.isGated { Call.runGated(call, item, scratch) } else { Call.run(call, item, scratch) }
        }
    }

    /// Plain numbers and addresses, which threads read without counting references.
    private struct Call: BitwiseCopyable {
        let products: UnsafeMutablePointer<KernelProduct>
        let count: Int
        /// Of each part of the rows.
        let items: Int
        let rowParts: Int
        let isGated: Bool
        let kernels: ak_kernels
        let scratch: UnsafeMutablePointer<UnsafeMutableRawPointer>
        var activations: ak_activations

        static func run(_ call: UnsafeMutablePointer<Call>, _ item: Int, _ scratch: UnsafeMutableRawPointer) {
            let (products, count) = (call.pointee.products, call.pointee.count)
            var (index, piece) = (0, call.pointee.rowParts == 1 ? item : item % call.pointee.items)
            while piece >= products[index].items {
                piece -= products[index].items
                index += 1
            }
            // A worker usually takes one piece after the other.
            let isLast = piece + 1 == products[index].items && index + 1 < count
            func run(_ activations: UnsafePointer<ak_activations>, fromRow row: Int) {
                products[index].run(
                    call.pointee.kernels, activations, piece: piece, next: isLast ? products[index + 1] : products[index],
                    nextPiece: isLast ? 0 : piece + 1, scratch: scratch,
                    into: (products[index].output + row * products[index].stride, products[index].stride))
            }
            if call.pointee.rowParts == 1 { return withUnsafePointer(to: &call.pointee.activations) { run($0, fromRow: 0) } }
            let rows = call.pointee.activations.part(item / call.pointee.items, of: call.pointee.rowParts)
            var activations = call.pointee.activations.rows(from: rows.lowerBound, count: rows.count)
            run(&activations, fromRow: rows.lowerBound)
        }

        static func runGated(_ call: UnsafeMutablePointer<Call>, _ item: Int, _ scratch: UnsafeMutableRawPointer) {
            let (gate, up) = (call.pointee.products, call.pointee.products + 1)
            withUnsafePointer(to: &call.pointee.activations) { activations in
                gate.pointee.run(call.pointee.kernels, activations, piece: item, next: up.pointee, nextPiece: item, scratch: scratch)
                up.pointee.run(call.pointee.kernels, activations, piece: item, next: gate.pointee, nextPiece: item + 1, scratch: scratch)
                gate.pointee.combine(
                    up.pointee, call.pointee.kernels, panels: gate.pointee.pieces.panels(item), rows: 0 ..< Int(activations.pointee.tokens))
            }
        }
    }
}

extension Backend {
    /// Parts that the rows of a product are shared out in, beside its panels: one for each thread where tiles are so fast that what threads pass each
    /// other weighs. A thread then adds to the rows whose norm it makes, which are in its own cache; weights that are rounded are rounded in each.
    fileprivate func rowParts(_ tokens: Int, _ type: ak_type) -> Int {
        hasBF16Tiles && (type == AK_BF16 || type == AK_I8) && tokens >= 4 * Backend.rowsAtOnce * pool.threads ? pool.threads : 1
    }
}

extension ak_activations {
    /// The rows of one of several parts: those that the same thread gets of ``Backend/forRows(_:_:)``.
    func part(_ part: Int, of parts: Int) -> Range<Int> {
        let (rows, step) = (Int(tokens), Backend.rowsAtOnce)
        let steps = (rows + step - 1) / step
        func start(_ part: Int) -> Int { min(steps * part / parts * step, rows) }
        return start(part) ..< start(part + 1)
    }
}
