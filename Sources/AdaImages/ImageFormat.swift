import AdaLLaVA

/// The image formats that are read. They are recognized by the first bytes, never by a file's name.
package enum ImageFormat: String, Sendable, CaseIterable, CustomStringConvertible {
    /// Baseline and progressive.
    case jpeg = "JPEG"
    /// All bit depths and colour types, interlaced or not.
    case png = "PNG"
    /// Lossy and lossless; of an animation the first frame.
    case webp = "WebP"
    /// The first frame.
    case gif = "GIF"
    /// OS/2 and Windows headers, with run lengths.
    case bmp = "BMP"

    package var description: String { rawValue }

    /// The format whose signature `bytes` starts with; `nil` if it is none of them.
    package init?(signatureOf bytes: [UInt8]) {
        if bytes.starts(with: [0xFF, 0xD8, 0xFF]) {
            self = .jpeg
        } else if bytes.starts(with: [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]) {
            self = .png
        } else if bytes.starts(with: "RIFF".utf8), bytes.dropFirst(8).starts(with: "WEBP".utf8) {
            self = .webp
        } else if bytes.starts(with: "GIF87a".utf8) || bytes.starts(with: "GIF89a".utf8) {
            self = .gif
        } else if bytes.starts(with: "BM".utf8) {
            self = .bmp
        } else {
            return nil
        }
    }

    /// A description of data of an unknown format, for a message: "starts with %PDF-1.7 (a PDF document)".
    static func describeUnknown(_ bytes: [UInt8]) -> String {
        let start = bytes.prefix(8)
        let isText = start.allSatisfy { (0x20...0x7E).contains($0) }
        let hexadecimal = start.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined(separator: " ")
        let shown = isText ? String(decoding: start, as: UTF8.self) : "bytes \(hexadecimal)"
        if let found = MappedFile.standIn(bytes) { return "are \(found.what); \(found.hint)" }
        return "starts with \(shown)" + (commonName(bytes).map { " (\($0))" } ?? "")
    }

    /// The name of a format that people are likely to pass by mistake.
    private static func commonName(_ bytes: [UInt8]) -> String? {
        let brand = bytes.count >= 12 && bytes[4..<8].elementsEqual("ftyp".utf8) ? String(decoding: bytes[8..<12], as: UTF8.self) : nil
        switch brand {
        case "avif", "avis": return "an AVIF image"
        case "heic", "heix", "heim", "heis", "mif1", "msf1": return "a HEIC image"
        case .some: return "a video or another ISO media file"
        case nil: break
        }
        let known: [(signature: [UInt8], name: String)] = [
            (Array("%PDF".utf8), "a PDF document"),
            ([0x49, 0x49, 0x2A, 0x00], "a TIFF image"),
            ([0x4D, 0x4D, 0x00, 0x2A], "a TIFF image"),
            (Array("8BPS".utf8), "a Photoshop document"),
            ([0xFF, 0x0A], "a JPEG XL image"),
            ([0x00, 0x00, 0x00, 0x0C, 0x4A, 0x58, 0x4C, 0x20], "a JPEG XL image"),
            ([0x00, 0x00, 0x00, 0x0C, 0x6A, 0x50, 0x20, 0x20], "a JPEG 2000 image"),
            ([0x00, 0x00, 0x01, 0x00], "a Windows icon"),
            (Array("<svg".utf8), "an SVG drawing"),
            (Array("<?xml".utf8), "an XML document"),
            ([0x50, 0x4B, 0x03, 0x04], "a ZIP archive"),
            ([0x1F, 0x8B], "gzip data"),
            (Array("GGUF".utf8), "a GGUF model"),
        ]
        return known.first { bytes.starts(with: $0.signature) }?.name
    }
}
