import AdaKernels

/// The work items of a product: ranges of adjacent panels. Plain addresses, so that workers read them without counting references; valid as long as
/// their ``RunItems``.
struct WorkItems: BitwiseCopyable {
    let count: Int
    /// Start of each item in the list of panels, and end of the last one.
    private let starts: UnsafePointer<Int32>?

    static var none: WorkItems { WorkItems(count: 0, starts: nil) }

    fileprivate init(_ list: IndexList) { (count, starts) = (list.count - 1, list.address) }
    private init(count: Int, starts: UnsafePointer<Int32>?) { (self.count, self.starts) = (count, starts) }

    func range(_ item: Int) -> Range<Int> {
        guard let starts, item < count else { return 0 ..< 0 }
        return Int(starts[item]) ..< Int(starts[item + 1])
    }
}

/// The work items of the products of one run, product after product, and the end of each thread's share of them.
struct RunItems {
    let products: [WorkItems]
    /// `nil`: equal shares.
    let ends: UnsafePointer<Int32>?
    /// Owners of the addresses.
    fileprivate let lists: [IndexList]
}

/// Work items of earlier runs, by the sizes that they depend on.
struct WorkItemTable {
    /// The products of a run, at most three, each as one number, because every layer of a sequence looks them up.
    fileprivate struct Key: Hashable {
        var first = UInt64.max, second = UInt64.max, third = UInt64.max
        let tokens: Tokens

        /// `nil` where a product does not fit a number.
        static func part(_ matrix: ak_matrix, panels: Int, panelBytes: Int) -> UInt64? {
            guard panels < 1 << 24, panelBytes < 1 << 26, matrix.bundle < 1 << 7, matrix.layout.rawValue < 2, matrix.type.rawValue < 63 else { return nil }
            return UInt64(panels) << 40 | UInt64(panelBytes) << 14 | UInt64(matrix.bundle) << 7 | UInt64(matrix.layout.rawValue) << 6
                | UInt64(matrix.type.rawValue)
        }
    }
    /// The number of tokens, as far as work items depend on it.
    fileprivate enum Tokens {
        case few, some, many

        init(_ tokens: Int, few: Int) { self = tokens <= few ? .few : tokens < AK_WIDE_TOKENS ? .some : .many }
    }
    fileprivate var entries: [Key: RunItems] = [:]
    /// Plans of variant H make ever new keys; a model that runs whole has a few dozen.
    private static let capacity = 4096

    fileprivate mutating func insert(_ items: RunItems, for key: Key) {
        if entries.count >= WorkItemTable.capacity { entries.removeAll(keepingCapacity: true) }
        entries[key] = items
    }
}

extension Workspace {
    /// Divides the panels of products that read the same activations into work items.
    ///
    /// With few tokens a product is bound by memory: each thread gets an equal number of adjacent bytes, in work items that shrink with the rest of its
    /// share, so that others can steal the last ones (guided self-scheduling, Polychronopoulos and Kuck, 1987). With many tokens a panel takes so long
    /// that items of one size are as good.
    /// - Parameter product: the matrix of each product, and the panels that are computed of it.
    func items(_ count: Int, tokens: Int, _ product: (Int) -> (matrix: ak_matrix, panels: Int)) -> RunItems {
        func part(_ index: Int) -> UInt64? {
            let (matrix, panels) = product(index)
            return WorkItemTable.Key.part(matrix, panels: panels, panelBytes: matrix.panelBytes)
        }
        var key: WorkItemTable.Key? = WorkItemTable.Key(tokens: .init(tokens, few: Int(kernels.tuning.few_tokens)))
        for index in 0 ..< count {
            guard let part = part(index), index < 3 else {
                key = nil
                break
            }
            if index == 0 { key?.first = part } else if index == 1 { key?.second = part } else { key?.third = part }
        }
        if let key, let known = workItemTable.entries[key] { return known }
        let products = (0 ..< count).map(product)
        var starts: [[Int32]], ends: [Int32]?
        if tokens > Int(kernels.tuning.few_tokens) {
            starts = products.map { matrix, panels in
                stride(from: 0, to: panels, by: panelsPerItem(matrix, count: panels, tokens: tokens)).map { Int32($0) } + [Int32(panels)]
            }
        } else {
            (starts, ends) = shares(products)
        }
        let (startLists, endList) = (starts.map { IndexList($0) }, ends.map { IndexList($0) })
        let lists = startLists + (endList.map { [$0] } ?? [])
        let items = RunItems(products: startLists.map { WorkItems($0) }, ends: endList?.address, lists: lists)
        if let key { workItemTable.insert(items, for: key) }
        return items
    }

    /// Work items of listed panels that are adjacent.
    /// - Parameters:
    ///   - columnsTogether: outputs of an item are a multiple of it: whole blocks or scale groups of the next product's inputs, if panels are listed.
    ///   - products: of those panels.
    func middleItems(_ product: KernelProduct, tokens: Int, columnsTogether: Int, products: Int) -> RunItems {
        let size = panelsPerItem(product.matrix.pointee, count: product.panelCount, tokens: tokens, products: products)
        let together = max(Int32(columnsTogether) / AK_PANEL, 1)
        var starts: [Int32] = product.panelCount > 0 ? [0] : []
        for index in 1 ..< max(product.panelCount, 1) {
            let (panel, before) = (product.panels[index], product.panels[index - 1])
            let isFull = index - Int(starts[starts.count - 1]) >= size && panel / together != before / together
            if panel != before + 1 || isFull { starts.append(Int32(index)) }
        }
        let list = IndexList(starts + [Int32(product.panelCount)])
        return RunItems(products: [WorkItems(list)], ends: nil, lists: [list])
    }

    /// Starts of the work items of one token's products, and the end of each thread's share of them.
    private func shares(_ products: [(matrix: ak_matrix, panels: Int)]) -> (starts: [[Int32]], ends: [Int32]) {
        var left = products.reduce(0) { $0 + $1.matrix.panelBytes * $1.panels }
        var starts = products.map { _ in [Int32(0)] }, ends: [Int32] = []
        var items = 0
        // The rest of a thread's share.
        var thread = 0, share = left / pool.threads
        for (product, (matrix, panels)) in products.enumerated() {
            let bytes = max(matrix.panelBytes, 1)
            let most = max(panelsPerItem(matrix, count: products.count > 1 ? Int.max / 2 : panels, tokens: 1), 4)
            // The overhead of a work item equals reading a few kilobytes.
            let least = max(1, Int(kernels.tuning.item_least_bytes) / bytes)
            // Quantized kernels without tiles read one panel after the other, the others up to four at a time.
            let multiple = matrix.bundle > 1 ? Int(matrix.bundle) : isQuantized(matrix.type) && kernels.tuning.one_panel_at_a_time != 0 ? 1 : 4
            var start = 0
            while start < panels {
                var size = max(min(share / bytes / 2, most), least)
                size = min(max(size / multiple, 1) * multiple, panels - start)
                start += size
                share -= size * bytes
                left -= size * bytes
                items += 1
                starts[product].append(Int32(start))
                if share < least * bytes / 2, thread < pool.threads - 1 {
                    ends.append(Int32(items))
                    thread += 1
                    share = left / (pool.threads - thread)
                }
            }
        }
        while ends.count < pool.threads { ends.append(Int32(items)) }
        return (starts, ends)
    }

    private func isQuantized(_ type: ak_type) -> Bool { type == AK_Q8_0 || type == AK_Q4_0 || type == AK_Q4_1 }

    /// Panels of a work item: enough bytes to be worth its overhead, few enough for equal shares.
    /// - Parameter products: number of products whose same panels an item computes.
    private func panelsPerItem(_ matrix: ak_matrix, count: Int, tokens: Int, products: Int = 1) -> Int {
        if kernels.tuning.bf16_tiles != 0, tokens >= AK_WIDE_TOKENS, matrix.type != AK_F32 {
            // Two panels at a time, and so many that several pairs read the activations from the first-level cache.
            let most = min(8 / products, count / (pool.threads * 2)) / 2 * 2
            return evenSize(count, most: max(most, 2), multiple: 2)
        }
        let panelBytes = max(matrix.panelBytes, 1), few = Int(kernels.tuning.few_tokens)
        let worth = max(1, Int(
            tokens > few ? kernels.tuning.item_bytes_many : matrix.layout == AK_ROWS ? kernels.tuning.item_bytes_few_rows : kernels.tuning.item_bytes_few) / panelBytes)
        let even = max(1, count / (pool.threads * 4))
        let most = min(worth, even)
        // Kernels take up to four panels at a time.
        let step = most >= 4 ? most / 4 * 4 : min(4, max(most, count <= 4 ? 1 : 2))
        // 16-bit weights are multiplied with many tokens three panels at a time, tiles four.
        if tokens > few, kernels.tuning.bf16_tiles == 0, matrix.type == AK_F16 || matrix.type == AK_BF16, matrix.layout == AK_PANELS, count >= 3 { return max(3, step / 3 * 3) }
        // 8-bit weights are multiplied with many tokens two panels at a time.
        return evenSize(count, most: step, multiple: tokens > few && matrix.type == AK_Q8_0 ? min(2, step) : 1)
    }

    /// The size of the work items that `count` panels are divided into: `most` panels, or a little fewer if shares are then equal.
    private func evenSize(_ count: Int, most: Int, multiple: Int = 1) -> Int {
        func longestShare(_ size: Int) -> Int {
            let items = (count + size - 1) / size
            return (items + pool.threads - 1) / pool.threads * size
        }
        let sizes = stride(from: most, through: max(most / 2, 1), by: -multiple)
        return sizes.min { longestShare($0) < longestShare($1) } ?? most
    }
}

extension ak_matrix {
    /// Bytes of 16 rows.
    var panelBytes: Int { layout == AK_ROWS ? stride * Int(AK_PANEL) : stride }
}
