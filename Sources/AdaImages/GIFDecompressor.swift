/// GIF's LZW (GIF89a, appendix F): codes of growing width, least significant bit first, in sub-blocks of up to 255 bytes.
struct GIFDecompressor {
    /// - Parameters:
    ///   - offset: position of the minimum code size.
    ///   - count: how many indices the frame has; decompression stops there.
    /// - Returns: exactly `count` palette indices in stored order.
    static func decompress(_ file: EncodedImage, offset: Int, count: Int) throws -> [UInt8] {
        guard let minimumSize = file.reader.u8(offset) else { throw file.truncated("the data end before the first pixel") }
        guard (1...8).contains(minimumSize) else { throw file.damaged("a minimum code size of \(minimumSize), expected 1 to 8") }
        var decompressor = GIFDecompressor(file: file, offset: offset + 1, minimumSize: minimumSize)
        return try decompressor.run(count: count)
    }

    private let file: EncodedImage
    private var offset: Int
    private var bytesLeftInBlock = 0
    private var bits: UInt32 = 0
    private var bitCount = 0

    private let minimumSize: Int
    private static let tableSize = 4096
    /// Every code is the string of an earlier code and one more index.
    private var prefix = [UInt16](repeating: 0, count: tableSize)
    private var suffix = [UInt8](repeating: 0, count: tableSize)
    private var length = [Int32](repeating: 1, count: tableSize)

    private init(file: EncodedImage, offset: Int, minimumSize: Int) {
        (self.file, self.offset, self.minimumSize) = (file, offset, minimumSize)
        for code in 0..<(1 << minimumSize) { suffix[code] = UInt8(code) }
    }

    private mutating func run(count: Int) throws -> [UInt8] {
        let clear = 1 << minimumSize
        let end = clear + 1
        var codeSize = minimumSize + 1
        var next = clear + 2
        var previous: Int?
        var indices = [UInt8](repeating: 0, count: count)
        var written = 0
        while written < count {
            guard let code = nextCode(size: codeSize), code != end else {
                throw file.truncated("its first frame has \(count) pixels, found \(written)")
            }
            if code == clear {
                codeSize = minimumSize + 1
                next = clear + 2
                previous = nil
                continue
            }
            guard let last = previous else {
                guard code < clear else { throw file.damaged("the first LZW code is \(code)") }
                indices[written] = UInt8(code)
                written += 1
                previous = code
                continue
            }
            guard code < next || (code == next && next < Self.tableSize) else {
                throw file.damaged("LZW code \(code) where \(next) codes are known")
            }
            // A code that is not defined yet means the previous string followed by its own first index.
            let known = code == next ? last : code
            let first = write(known, to: &indices, at: &written)
            if code == next, written < count {
                indices[written] = first
                written += 1
            }
            if next < Self.tableSize {
                prefix[next] = UInt16(last)
                suffix[next] = first
                length[next] = length[last] + 1
                next += 1
                if next == 1 << codeSize, codeSize < 12 { codeSize += 1 }
            }
            previous = code
        }
        return indices
    }

    /// Writes the string of `code`, as far as it fits. Returns its first index.
    private func write(_ code: Int, to indices: inout [UInt8], at written: inout Int) -> UInt8 {
        let stringLength = Int(length[code])
        var current = code
        for position in stride(from: stringLength - 1, to: 0, by: -1) {
            if written + position < indices.count { indices[written + position] = suffix[current] }
            current = Int(prefix[current])
        }
        indices[written] = suffix[current]
        written = min(written + stringLength, indices.count)
        return suffix[current]
    }

    private mutating func nextCode(size: Int) -> Int? {
        while bitCount < size {
            guard let byte = nextByte() else { return nil }
            bits |= UInt32(byte) << UInt32(bitCount)
            bitCount += 8
        }
        let code = Int(bits & ((1 << UInt32(size)) - 1))
        bits >>= UInt32(size)
        bitCount -= size
        return code
    }

    private mutating func nextByte() -> UInt8? {
        if bytesLeftInBlock == 0 {
            guard offset < file.bytes.count, file.bytes[offset] > 0 else { return nil }
            bytesLeftInBlock = Int(file.bytes[offset])
            offset += 1
        }
        guard offset < file.bytes.count else { return nil }
        bytesLeftInBlock -= 1
        offset += 1
        return file.bytes[offset - 1]
    }
}
