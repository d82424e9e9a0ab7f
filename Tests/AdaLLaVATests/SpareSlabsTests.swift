import AdaKernels
import Testing

@testable import AdaLLaVA

/// Memory that sequences leave to the next ones.
@Suite struct SpareSlabsTests {
    private func address(_ memory: AlignedMemory?) -> UInt { UInt(bitPattern: memory?.address) }

    // A failure means that each prompt waits for the system to clear memory that the one before it had, or that two sequences share their keys and values.
    @Test func aSlabIsUsedAgainOnceItIsFree() {
        let spares = SpareSlabs(), bytes = 3 << 20
        var first: AlignedMemory? = HugePageArena(slabBytes: 8 << 20, spares: spares).allocate(byteCount: bytes)
        let place = address(first)
        var second: AlignedMemory? = HugePageArena(slabBytes: 8 << 20, spares: spares).allocate(byteCount: bytes)
        #expect(address(second) != place)
        first = nil
        let larger = HugePageArena(slabBytes: 16 << 20, spares: spares).allocate(byteCount: bytes)
        #expect(larger.address != UnsafeMutableRawPointer(bitPattern: place))
        let third = HugePageArena(slabBytes: 8 << 20, spares: spares).allocate(byteCount: bytes)
        #expect(third.address == UnsafeMutableRawPointer(bitPattern: place))
        // All of a slab's users have to go first.
        let arena = HugePageArena(slabBytes: 8 << 20, spares: spares)
        second = arena.allocate(byteCount: bytes)
        let sibling = arena.allocate(byteCount: bytes)
        let shared = address(second)
        second = nil
        let fourth = HugePageArena(slabBytes: 8 << 20, spares: spares).allocate(byteCount: bytes)
        #expect(fourth.address != UnsafeMutableRawPointer(bitPattern: shared))
        withExtendedLifetime((larger, third, sibling, fourth)) {}
    }

    // A failure means that a server keeps the memory of its longest conversations for ever.
    @Test func noMoreIsKeptThanTheLimit() {
        let spares = SpareSlabs(limit: 8 << 20)
        do {
            let used = (0 ..< 3).map { _ in HugePageArena(slabBytes: 4 << 20, spares: spares).allocate(byteCount: 1 << 20) }
            withExtendedLifetime(used) { #expect(spares.byteCount == 0) }
        }
        #expect(spares.byteCount == 8 << 20)
        // Other sizes than those that are kept take their place: a server's next conversations are as long as its last ones.
        var place: UInt = 0
        do {
            let longer = HugePageArena(slabBytes: 6 << 20, spares: spares).allocate(byteCount: 1 << 20)
            place = address(longer)
        }
        #expect(spares.byteCount == 6 << 20)
        let next = HugePageArena(slabBytes: 6 << 20, spares: spares).allocate(byteCount: 1 << 20)
        #expect(address(next) == place && spares.byteCount == 0)
        withExtendedLifetime(next) {}
    }

    // A failure means that a second answer of one model still asks the system for its keys and values, or differs from the first.
    @Test func aSecondSequenceTakesTheFirstOnesMemory() throws {
        let spares = SpareSlabs()
        var places: [UInt] = []
        for _ in 0 ..< 2 {
            let cache = KeyValueCache(layerCount: 2, capacity: 640, spares: spares)
            let layer = LayerCache(heads: [0, 1, 2], headDim: 64, capacity: 640, type: AK_F16, in: cache.memory)
            places.append(UInt(bitPattern: layer.keys(0)))
            let halves = layer.keys(0).assumingMemoryBound(to: UInt16.self)
            #expect((0 ..< 640 * 64).allSatisfy { halves[$0] == 0 })
            halves[7] = 0x7e00   // NaN
        }
        #expect(places[0] == places[1])
    }
}
