/// Where a file can say how it must be turned, looked at in the order of Pillow's `ImageOps.exif_transpose`: EXIF, else ImageMagick's
/// `Raw profile type exif`; if that has no orientation tag, of whatever value, `tiff:Orientation` in XMP.
///
/// Whatever is missing or broken means upright: metadata never makes a picture unreadable.
struct OrientationMetadata {
    /// An EXIF block: a TIFF file, with or without `Exif\0\0` in front.
    var exif: [UInt8]?
    /// ImageMagick's text: three lines of heading, then an EXIF block in hexadecimal digits.
    var rawProfile: [UInt8]?
    /// An XMP packet.
    var xmp: [UInt8]?

    static let exifPrefix: [UInt8] = Array("Exif\0\0".utf8)

    var orientation: ExifOrientation {
        let value =
            switch (exif ?? rawProfile.flatMap(Self.block)).map(Self.tag) ?? .absent {
            case .value(let value): value
            case .absent: xmp.flatMap(Self.digit)
            }
        return value.flatMap(ExifOrientation.init(rawValue:)) ?? .upright
    }

    // MARK: - EXIF

    private enum Tag {
        case absent
        /// `nil`: not a whole number.
        case value(Int?)
    }

    /// Bytes of a TIFF value by type: the types that hold numbers or text.
    private static let sizes = [1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8]

    /// The first orientation in the block's first directory. Entries of unknown types and without values are skipped; an entry whose values
    /// are beyond the end stops the search, as in Pillow.
    private static func tag(_ block: [UInt8]) -> Tag {
        var bytes = block[...]
        for _ in 0..<2 where bytes.starts(with: exifPrefix) { bytes = bytes.dropFirst(exifPrefix.count) }
        let reader = ByteReader(bytes: Array(bytes))
        let isBigEndian = reader.matches("MM", at: 0)
        guard isBigEndian || reader.matches("II", at: 0), [[42, 0], [0, 42]].contains([reader.u8(2), reader.u8(3)]) else { return .absent }
        func integer(_ offset: Int, _ size: Int) -> Int? { reader.integer(offset, size: size, isBigEndian: isBigEndian) }
        guard let directory = integer(4, 4), let entries = integer(directory, 2) else { return .absent }
        var total = 0
        for entry in 0..<entries {
            let offset = directory + 2 + entry * 12
            guard let tag = integer(offset, 2), let type = integer(offset + 2, 2), let count = integer(offset + 4, 4),
                let inline = reader.range(offset + 8, 4)
            else { return .absent }
            guard let size = sizes[type], count > 0 else { continue }
            var values = inline.lowerBound
            if count * size > 4 {
                total += count * size
                if total > reader.count { continue }
                guard let place = integer(offset + 8, 4), reader.range(place, count * size) != nil else { return .absent }
                values = place
            }
            if tag == 0x0112 { return .value(number(type, size) { integer(values + $0, $1) }) }
        }
        return .absent
    }

    /// The first value of a tag, where it is a whole number; bytes and text are none.
    private static func number(_ type: Int, _ size: Int, _ integer: (Int, Int) -> Int?) -> Int? {
        switch type {
        case 3, 4, 13: return integer(0, size)
        case 6: return integer(0, 1).map { Int(Int8(truncatingIfNeeded: $0)) }
        case 8: return integer(0, 2).map { Int(Int16(truncatingIfNeeded: $0)) }
        case 9: return integer(0, 4).map { Int(Int32(truncatingIfNeeded: $0)) }
        case 5, 10:
            guard let numerator = integer(0, 4), let denominator = integer(4, 4), denominator != 0 else { return nil }
            return numerator % denominator == 0 ? numerator / denominator : nil
        case 11: return integer(0, 4).flatMap { Int(exactly: Float(bitPattern: UInt32(truncatingIfNeeded: $0))) }
        default: return nil
        }
    }

    // MARK: - Text

    /// The EXIF block that `Raw profile type exif` spells.
    private static func block(_ text: [UInt8]) -> [UInt8]? {
        let lines = text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).dropFirst(3)
        let digits = lines.joined().filter { !($0 == 0x20 || (0x09...0x0D).contains($0)) }
        guard digits.count % 2 == 0 else { return nil }
        var block: [UInt8] = []
        block.reserveCapacity(digits.count / 2)
        for position in stride(from: 0, to: digits.count, by: 2) {
            guard let high = hexadecimalDigit(digits[position]), let low = hexadecimalDigit(digits[position + 1]) else { return nil }
            block.append(high << 4 | low)
        }
        return block
    }

    /// The digit of the first `tiff:Orientation="6"` or `<tiff:Orientation>6` of an XMP packet.
    private static func digit(_ packet: [UInt8]) -> Int? {
        let name = Array("tiff:Orientation".utf8), reader = ByteReader(bytes: packet)
        for start in packet.indices where packet[start] == name[0] && packet[start...].starts(with: name) {
            let end = start + name.count
            let place = reader.matches("=\"", at: end) ? end + 2 : reader.matches(">", at: end) ? end + 1 : packet.count
            if let digit = reader.u8(place), (0x30...0x39).contains(digit) { return digit - 0x30 }
        }
        return nil
    }
}

/// The value of a hexadecimal digit in either case.
func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
}
