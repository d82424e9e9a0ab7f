import CImageShims

/// The chunks of a PNG that can contain its orientation: `eXIf`, and texts (`tEXt`, `zTXt`, `iTXt`) with the keywords that Pillow knows. They may
/// be before or after the pixel data; of several with the same meaning the last counts.
struct PNGMetadata {
    private var metadata = OrientationMetadata()
    /// Bytes that further texts may unpack to.
    private var room = largestText * 64

    /// The largest text that is unpacked, as in Pillow; a compressed one may ask for a thousand times its size.
    private static let largestText = 1 << 20
    private static let xmpKeyword = Array("XML:com.adobe.xmp".utf8)
    private static let profileKeyword = Array("Raw profile type exif".utf8)

    var orientation: ExifOrientation { metadata.orientation }

    init(_ file: EncodedImage) {
        let reader = file.reader
        var offset = 8
        while let length = reader.u32BigEndian(offset), let body = reader.range(offset + 8, length) {
            if reader.matches("IEND", at: offset + 4) { break }
            if reader.matches("eXIf", at: offset + 4) {
                metadata.exif = Array(file.bytes[body])
            } else if ["tEXt", "zTXt", "iTXt"].contains(where: { reader.matches($0, at: offset + 4) }) {
                // The first letters differ.
                keep(file.bytes[body], kind: file.bytes[offset + 4])
            }
            offset = body.upperBound + 4
        }
    }

    private mutating func keep(_ body: ArraySlice<UInt8>, kind: UInt8) {
        let keyword = body.prefix { $0 != 0 }
        let isXMP = keyword.elementsEqual(PNGMetadata.xmpKeyword), isProfile = keyword.elementsEqual(PNGMetadata.profileKeyword)
        let isExif = kind == UInt8(ascii: "t") && keyword.elementsEqual("exif".utf8)
        guard isXMP || isProfile || isExif, let text = text(body.dropFirst(keyword.count + 1), kind: kind) else { return }
        if isExif { metadata.exif = text }
        if isXMP { metadata.xmp = text }
        if isProfile { metadata.rawProfile = text }
    }

    /// The text after the keyword's zero byte; `nil` if it cannot be unpacked, or is too large.
    private mutating func text(_ body: ArraySlice<UInt8>, kind: UInt8) -> [UInt8]? {
        switch kind {
        case UInt8(ascii: "t"): return Array(body)
        case UInt8(ascii: "z"):
            // A compression method, the only one being 0.
            return body.first == 0 ? unpacked(body.dropFirst()) : nil
        default:
            // Whether it is compressed, the method, a language and a translated keyword, both ending with a zero.
            guard body.count >= 2, let flag = body.first else { return nil }
            let parts = body.dropFirst(2).split(separator: 0, maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { return nil }
            if flag == 0 { return Array(parts[2]) }
            return body.dropFirst().first == 0 ? unpacked(parts[2]) : nil
        }
    }

    private mutating func unpacked(_ data: ArraySlice<UInt8>) -> [UInt8]? {
        let capacity = min(PNGMetadata.largestText, room)
        var status = CIS_NO_MEMORY
        let text = [UInt8](unsafeUninitializedCapacity: capacity) { target, count in
            data.withUnsafeBufferPointer { source in
                guard let base = target.baseAddress, let bytes = source.baseAddress else { return }
                status = cis_inflate(base, capacity, &count, bytes, source.count)
            }
        }
        room -= text.count
        return status == CIS_OK ? text : nil
    }
}
