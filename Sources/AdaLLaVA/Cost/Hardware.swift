/// A processor as the roofline model sees it.
package struct Hardware: Sendable, Equatable, Codable {
    package var name: String
    /// Bytes a second between memory and the processor.
    package var bandwidth: Double
    /// Operations a second with 16-bit floats.
    package var fp16: Double
    /// Operations a second with 8-bit integers; `nil` where nothing is known.
    package var int8: Double?
    /// Operations a second with 32-bit floats; `nil` where nothing is known.
    package var fp32: Double?
    /// Bytes of memory on the chip, which a block of fused attention must fit in.
    package var onChipBuffer: Double

    package init(name: String, bandwidth: Double, fp16: Double, int8: Double?, fp32: Double? = nil, onChipBuffer: Double) {
        (self.name, self.bandwidth, self.fp16, self.int8, self.fp32) = (name, bandwidth, fp16, int8, fp32)
        self.onChipBuffer = onChipBuffer
    }
}
