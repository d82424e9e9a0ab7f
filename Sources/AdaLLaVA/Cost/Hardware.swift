/// A processor as the roofline model sees it.
public struct Hardware: Sendable, Equatable, Codable {
    public var name: String
    /// Bytes a second between memory and the processor.
    public var bandwidth: Double
    /// Operations a second with 16-bit floats.
    public var fp16: Double
    /// Operations a second with 8-bit integers; `nil` where nothing is known.
    public var int8: Double?
    /// Operations a second with 32-bit floats; `nil` where nothing is known.
    public var fp32: Double?
    /// Bytes of memory on the chip: what a block of fused attention has to fit in.
    public var onChipBuffer: Double

    public init(name: String, bandwidth: Double, fp16: Double, int8: Double?, fp32: Double? = nil, onChipBuffer: Double) {
        (self.name, self.bandwidth, self.fp16, self.int8, self.fp32) = (name, bandwidth, fp16, int8, fp32)
        self.onChipBuffer = onChipBuffer
    }
}
