/// One symbol of a text that is being merged: a stretch of its bytes, and its neighbours in the list of those still alive.
struct MergeSymbol {
    /// The token it is, or -1 when the vocabulary has none.
    var id: Int32
    var start: Int32
    /// Bytes; 0 once the symbol on its left has swallowed it.
    var length: Int32
    var previous: Int32
    var next: Int32
    /// Merges with nothing (a symbol the vocabulary's author wants kept whole).
    var isFrozen = false
}

/// Says which neighbours may merge, and how soon.
protocol PairRanking {
    /// Lower ranks merge first; `nil` when the two make no token.
    func rank(_ left: MergeSymbol, _ right: MergeSymbol) -> (rank: Int32, result: Int32)?
}

/// Byte-pair merging with a priority queue: O(n log n) for n symbols, so a megabyte without a space is no trouble.
///
/// Lowest rank first, leftmost first among equals, as SentencePiece and Hugging Face tokenizers do it.
struct PairMerger {
    private struct Candidate {
        /// Rank in the upper half, the left symbol's index in the lower.
        var key: UInt64
        var right: Int32
        var result: Int32
        /// Bytes of both symbols: when it no longer fits, one of them has changed and the candidate is stale.
        var length: Int32
    }

    private var heap: [Candidate] = []

    /// Merges until no neighbours make a token. Symbol 0 stays the first; dead symbols have length 0.
    /// - Parameter proposed: called for every pair that could merge, as it is found.
    mutating func merge(
        _ symbols: inout [MergeSymbol], by ranking: some PairRanking,
        proposed: (_ left: MergeSymbol, _ right: MergeSymbol, _ result: Int32) -> Void = { _, _, _ in }
    ) {
        guard symbols.count > 1 else { return }
        heap.removeAll(keepingCapacity: true)
        for right in 1..<symbols.count {
            propose(Int32(right - 1), Int32(right), symbols, ranking, proposed)
        }
        while let best = pop() {
            let left = Int(UInt32(truncatingIfNeeded: best.key))
            let right = Int(best.right)
            guard symbols[left].length > 0, symbols[right].length > 0,
                symbols[left].length + symbols[right].length == best.length
            else { continue }
            symbols[left].length = best.length
            symbols[left].id = best.result
            symbols[right].length = 0
            let next = symbols[right].next
            symbols[left].next = next
            if next >= 0 { symbols[Int(next)].previous = Int32(left) }
            if symbols[left].previous >= 0 { propose(symbols[left].previous, Int32(left), symbols, ranking, proposed) }
            if next >= 0 { propose(Int32(left), next, symbols, ranking, proposed) }
        }
    }

    private mutating func propose(
        _ left: Int32, _ right: Int32, _ symbols: [MergeSymbol], _ ranking: some PairRanking,
        _ proposed: (MergeSymbol, MergeSymbol, Int32) -> Void
    ) {
        let (first, second) = (symbols[Int(left)], symbols[Int(right)])
        guard !first.isFrozen, !second.isFrozen, let found = ranking.rank(first, second) else { return }
        proposed(first, second, found.result)
        let key = UInt64(UInt32(bitPattern: found.rank)) << 32 | UInt64(UInt32(bitPattern: left))
        push(Candidate(key: key, right: right, result: found.result, length: first.length + second.length))
    }

    private mutating func push(_ candidate: Candidate) {
        heap.append(candidate)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].key < heap[parent].key else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func pop() -> Candidate? {
        guard let best = heap.first, let last = heap.popLast() else { return nil }
        guard !heap.isEmpty else { return best }
        // Children move up into the hole that the best one leaves, until the last one fits.
        heap.withUnsafeMutableBufferPointer { heap in
            var hole = 0
            while true {
                var child = 2 * hole + 1
                guard child < heap.count else { break }
                if child + 1 < heap.count && heap[child + 1].key < heap[child].key { child += 1 }
                guard heap[child].key < last.key else { break }
                heap[hole] = heap[child]
                hole = child
            }
            heap[hole] = last
        }
        return best
    }
}
