import CImageShims

/// Calls a codec that writes `width * height * 3` bytes and reports with a status and a message.
enum CodecCall {
    /// - Returns: the pixels, all written.
    /// - Throws: ``ImageError``, with the codec's own message.
    static func pixels(
        of file: EncodedImage, width: Int, height: Int,
        _ decode: (UnsafeMutablePointer<UInt8>, UnsafePointer<UInt8>, Int, UInt32, UInt32, Int32, UnsafeMutablePointer<CChar>) -> cis_status
    ) throws -> [UInt8] {
        var message = [CChar](repeating: 0, count: Int(CIS_MESSAGE_CAPACITY))
        var status = CIS_NO_MEMORY
        let pixels = [UInt8](unsafeUninitializedCapacity: width * height * 3) { target, count in
            file.bytes.withUnsafeBufferPointer { source in
                guard let rgb = target.baseAddress, let data = source.baseAddress else { return }
                status = message.withUnsafeMutableBufferPointer { text in
                    text.baseAddress.map { decode(rgb, data, source.count, UInt32(width), UInt32(height), file.tolerance == .asPillow ? 1 : 0, $0) } ?? CIS_NO_MEMORY
                }
            }
            count = status == CIS_OK ? width * height * 3 : 0
        }
        let reason = text(message)
        switch status {
        case CIS_OK: return pixels
        case CIS_TRUNCATED: throw file.truncated(reason)
        case CIS_NO_MEMORY: throw ImageError.outOfMemory(name: file.name, format: file.format, bytes: width * height * 3)
        default: throw file.damaged(reason)
        }
    }

    static func text(_ message: [CChar]) -> String {
        String(decoding: message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
