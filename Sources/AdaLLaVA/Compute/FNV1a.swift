/// The hash of Fowler, Noll and Vo (FNV-1a, 64 bits): the same number on every machine and in every run. Not for secrets.
package struct FNV1a: Sendable {
    package private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325

    package init() {}

    /// The hash of a text's UTF-8 bytes.
    package init(_ text: String) { for byte in text.utf8 { add(UInt64(byte)) } }

    /// - Parameter next: a byte; a larger value is taken as one step all the same.
    package mutating func add(_ next: UInt64) { value = (value ^ next) &* 0x0000_0100_0000_01B3 }
}
