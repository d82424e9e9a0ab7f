import AdaKernels
import Testing

@testable import AdaLLaVA

/// Memory of keys and values: pages that sequences share and leave to the next ones.
@Suite struct PagePoolTests {
    private static let layout = KeyValueLayout(headDim: 64, type: AK_F16)

    private func pages(_ heads: [Int] = [0, 1, 2]) -> LayerPages { LayerPages(heads: heads, layout: Self.layout) }

    private func address(_ pages: LayerPages, slot: Int) throws -> UnsafeRawPointer? {
        try #require(pages.head(pages.heads[0])).pages[slot / KeyValueLayout.slots]
    }

    /// Where the page of a slot lies; 0 where there is none.
    private func place(_ pages: LayerPages, slot: Int = 0) throws -> UInt { UInt(bitPattern: try address(pages, slot: slot)) }

    private func bytes(_ pages: LayerPages, slot: Int = 0) throws -> [UInt8] {
        let first = try #require(try address(pages, slot: slot))
        return Array(UnsafeRawBufferPointer(start: first, count: Self.layout.pageBytes(heads: pages.heads.count)))
    }

    private func fill(_ pages: LayerPages, slot: Int = 0, with byte: UInt8) throws {
        let first = try #require(try address(pages, slot: slot))
        UnsafeMutableRawPointer(mutating: first).initializeMemory(
            as: UInt8.self, repeating: byte, count: Self.layout.pageBytes(heads: pages.heads.count))
    }

    // A failure means that each prompt waits for the system to clear memory that the one before it had, or that two sequences share their keys and values.
    @Test("a page is used again once it is free") func aPageIsUsedAgainOnceItIsFree() throws {
        let pool = PagePool(), size = Self.layout.pageBytes(heads: 3)
        var first: KeyValuePage? = try pool.take(size)
        let place = try #require(first).address
        let second = try pool.take(size)
        #expect(second.address != place && pool.usedBytes == 2 * size && pool.spareBytes == 0)
        first = nil
        #expect(pool.usedBytes == size && pool.spareBytes == size)
        // A page of another size is another page.
        let smaller = try pool.take(Self.layout.pageBytes(heads: 1))
        #expect(smaller.address != place && pool.spareBytes == size)
        let third = try pool.take(size)
        #expect(third.address == place && pool.spareBytes == 0 && pool.usedBytes == 2 * size + smaller.byteCount)
        withExtendedLifetime((second, third)) {}
    }

    // A failure means that running answers wait for the system while a new prompt gets its pages.
    @Test("memory that is ready is used first, and made ready again")
    func readyMemory() async throws {
        let pool = PagePool(), size = Self.layout.pageBytes(heads: 3)
        pool.keepReady(16 << 20)
        func becomesReady(_ pool: PagePool, _ byteCount: Int) async throws {
            for _ in 0 ..< 2000 where pool.readyBytes < byteCount { try await Task.sleep(for: .milliseconds(5)) }
            #expect(pool.readyBytes == byteCount)
        }
        try await becomesReady(pool, 16 << 20)
        let pages = try (0 ..< 2 * (8 << 20) / size).map { _ in try pool.take(size) }
        try await becomesReady(pool, 16 << 20)
        #expect(Set(pages.map { UInt(bitPattern: $0.address) / UInt(size) }).count == pages.count)
        // No more than a quarter of what keys and values may take.
        let small = PagePool(limit: 40 << 20)
        small.keepReady(1 << 30)
        try await becomesReady(small, 8 << 20)
    }

    // A failure means that a server keeps the memory of its longest conversations for ever.
    @Test("no more is kept than the limit") func noMoreIsKeptThanTheLimit() throws {
        let size = Self.layout.pageBytes(heads: 1), pool = PagePool(spareLimit: 2 * size + 5)
        do {
            let used = try (0 ..< 3).map { _ in try pool.take(size) }
            withExtendedLifetime(used) { #expect(pool.spareBytes == 0 && pool.usedBytes == 3 * size) }
        }
        #expect(pool.spareBytes == 2 * size && pool.usedBytes == 0)
        let next = try pool.take(size)
        #expect(pool.spareBytes == size)
        withExtendedLifetime(next) {}
        let none = PagePool(spareLimit: 0)
        _ = try none.take(size)
        #expect(none.spareBytes == 0 && none.usedBytes == 0)
    }

    // A failure means that too long a conversation takes the machine down instead of being refused, or that the message does not say what there is.
    @Test("the limit is an error with numbers") func theLimitIsAnErrorWithNumbers() throws {
        let size = Self.layout.pageBytes(heads: 2), pool = PagePool(limit: 2 * size + size / 2)
        let layer = pages([0, 1])
        try layer.reserve(0 ..< 2 * KeyValueLayout.slots, pool)
        let expected = ComputeError.memory(what: "keys and values", bytes: size, used: 2 * size, limit: 2 * size + size / 2)
        #expect(throws: expected) { try layer.reserve(2 * KeyValueLayout.slots ..< 2 * KeyValueLayout.slots + 1, pool) }
        for number in [size, 2 * size, 2 * size + size / 2] { #expect(expected.description.contains(megabytes(number))) }
        #expect(expected.description.contains("--max-tokens") && expected.category == .software)
        // What was there is still there, and what is given back can be taken.
        #expect(pool.usedBytes == 2 * size && layer.byteCount == 2 * size && layer.holds(2 * KeyValueLayout.slots, window: 0))
        let other = pages([0, 1])
        #expect(throws: ComputeError.self) { try other.reserve(0 ..< 1, pool) }
        withExtendedLifetime(layer) {}
    }

    // A failure means that memory which a conversation gave back is lost.
    @Test("what is given back can be taken") func whatIsGivenBackCanBeTaken() throws {
        let size = Self.layout.pageBytes(heads: 2), pool = PagePool(limit: size)
        for _ in 0 ..< 3 {
            let layer = pages([0, 1])
            try layer.reserve(0 ..< 1, pool)
            #expect(pool.usedBytes == size)
        }
        #expect(pool.usedBytes == 0)
    }

    // A failure means that a second sequence reads not-a-number where the first one's page held it: kernels read whole panels of 16 positions.
    @Test("panels that are not filled are zero") func panelsThatAreNotFilledAreZero() throws {
        let pool = PagePool(), slots = KeyValueLayout.slots, panel = Int(AK_PANEL)
        for (range, cleared) in [(0 ..< 20, 1), (0 ..< 1, 0), (0 ..< slots - 1, slots / panel - 1), (16 ..< 17, 1), (10 ..< 40, 2)] {
            var used: UInt = 0
            do {
                let before = pages()
                try before.reserve(0 ..< slots, pool)
                try fill(before, with: 0x7e)   // 0x7e7e is NaN
                used = try place(before)
            }
            let layer = pages()
            try layer.reserve(0 ..< range.upperBound, pool)
            #expect(try place(layer) == used)
            try fill(layer, with: 0x7e)
            try layer.reserve(range, pool)
            let found = try bytes(layer), l = Self.layout
            for head in 0 ..< 3 {
                for (start, size) in [(head * l.keyBytes, l.keyBytes), (3 * l.keyBytes + head * l.valueBytes, l.valueBytes)] {
                    let step = size * panel / slots
                    for index in 0 ..< slots / panel {
                        let part = found[start + index * step ..< start + (index + 1) * step]
                        #expect(part.allSatisfy { $0 == (index == cleared ? 0 : 0x7e) }, "\(range), head \(head), panel \(index)")
                    }
                }
            }
            // Panels that are filled, or that held positions before, stay as they are.
            try fill(layer, with: 0x11)
            try layer.reserve(range.upperBound ..< range.upperBound + 1, pool)
            if range.upperBound % panel != 0, range.upperBound + 1 < slots { #expect(try bytes(layer).allSatisfy { $0 == 0x11 }, "\(range)") }
        }
    }

    // A failure means that one conversation's question changes what another one with the same beginning reads.
    @Test("shared pages are copied before they are written") func sharedPagesAreCopiedBeforeTheyAreWritten() throws {
        let pool = PagePool(), slots = KeyValueLayout.slots, size = Self.layout.pageBytes(heads: 3)
        let first = pages()
        try first.reserve(0 ..< 2 * slots + 40, pool)
        for (page, byte) in [UInt8(1), 2, 3].enumerated() { try fill(first, slot: page * slots, with: byte) }
        let second = LayerPages(sharing: first, length: slots + 30), third = LayerPages(sharing: first, length: 2 * slots)
        #expect(pool.usedBytes == 3 * size && second.heads == first.heads)
        #expect(try place(second) == place(first) && place(second, slot: slots) == place(first, slot: slots))
        #expect(second.holds(slots + 30, window: 0) && !second.holds(2 * slots + 1, window: 0) && !third.holds(2 * slots + 1, window: 0))
        // The second one goes on in the middle of its last page.
        try second.reserve(slots + 30 ..< slots + 31, pool)
        #expect(pool.usedBytes == 4 * size)
        #expect(try place(second) == place(first) && place(second, slot: slots) != place(first, slot: slots))
        #expect(try bytes(second, slot: slots).allSatisfy { $0 == 2 })
        try fill(second, slot: slots, with: 9)
        #expect(try bytes(first, slot: slots).allSatisfy { $0 == 2 } && bytes(third, slot: slots).allSatisfy { $0 == 2 })
        // The third one goes on with a page of its own.
        try third.reserve(2 * slots ..< 2 * slots + 1, pool)
        #expect(try place(third, slot: 2 * slots) != place(first, slot: 2 * slots) && bytes(first, slot: 2 * slots).allSatisfy { $0 == 3 })
        #expect(pool.usedBytes == 5 * size)
        // A page that is no longer shared is written where it is.
        let own = try place(second, slot: slots)
        try second.reserve(slots + 31 ..< slots + 60, pool)
        #expect(try place(second, slot: slots) == own && pool.usedBytes == 5 * size)
        // Whoever shares keeps the pages alive.
        var source: LayerPages? = pages([7])
        try source?.reserve(0 ..< 4, pool)
        let heir = LayerPages(sharing: try #require(source), length: 4), kept = try place(heir)
        source = nil
        try heir.reserve(4 ..< 5, pool)
        #expect(try place(heir) == kept && heir.head(7) != nil && heir.head(0) == nil)
    }

    // A failure means that a long conversation with a sliding window keeps pages that no query reads, or loses one that is read.
    @Test("a window gives pages back") func aWindowGivesPagesBack() throws {
        let pool = PagePool(), slots = KeyValueLayout.slots, size = Self.layout.pageBytes(heads: 3), window = 100
        let layer = pages()
        try layer.reserve(0 ..< 2 * slots, window: window, pool)
        #expect(pool.usedBytes == 2 * size)
        // Slot s sees the slots from s + 1 − window on: the first page is read until slot slots + window − 2.
        try layer.reserve(2 * slots ..< 2 * slots + 1, window: window, pool)
        #expect(try place(layer) == 0 && place(layer, slot: slots) != 0 && pool.usedBytes == 2 * size && layer.byteCount == 2 * size)
        #expect(layer.holds(2 * slots + 1, window: window) && !layer.holds(2 * slots + 1, window: 0))
        let other = pages()
        try other.reserve(0 ..< slots + window - 1, window: window, pool)
        try other.reserve(slots + window - 1 ..< slots + window, window: window, pool)
        #expect(try place(other) == 0)
        let third = pages()
        try third.reserve(0 ..< slots + window - 2, window: window, pool)
        try third.reserve(slots + window - 2 ..< slots + window - 1, window: window, pool)
        #expect(try place(third) != 0)
        // Many pages: the list of addresses grows.
        try layer.reserve(2 * slots + 1 ..< 20 * slots, window: window, pool)
        try layer.reserve(20 * slots ..< 20 * slots + 1, window: window, pool)
        #expect(layer.byteCount == 2 * size && layer.holds(20 * slots + 1, window: window))
        #expect(try (0 ... 20).map { try place(layer, slot: $0 * slots) != 0 } == (0 ... 20).map { $0 >= 19 })
    }

    // A failure means that a second answer of one model still asks the system for its keys and values.
    @Test("a second sequence takes the first one's memory") func aSecondSequenceTakesTheFirstOnesMemory() throws {
        let (decoder, workspace) = try MadeUpModel.decoder(kernels: try #require(kernelSets.last)) { _ in .q8_0 }
        let runner = BatchRunner(decoder, workspace)
        var places: [[UInt]] = []
        for _ in 0 ..< 2 {
            let reader = SequenceReader(decoder)
            _ = try runner.step([try reader.chunk(0 ..< 40)])
            places.append(try reader.sequence.layers.compactMap { $0 }.map { try place($0) }.sorted())
        }
        #expect(places[0] == places[1] && Set(places[0]).count == decoder.layers.count && runner.pages.usedBytes == 0)
    }
}
