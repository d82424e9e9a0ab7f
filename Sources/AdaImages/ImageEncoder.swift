import AdaLLaVA
import CImageShims

/// Writes images. The same pixels give the same bytes on the same versions of libpng and libjpeg-turbo.
package enum ImageEncoder {
    /// A PNG file: 8-bit RGB, lossless.
    /// - Throws: ``ImageError/encoding(format:reason:)``
    package static func png(_ image: RGBImage) throws -> [UInt8] {
        try encode(image, format: .png) { data, size, rgb, width, height, message in
            cis_png_encode(data, size, rgb, width, height, message)
        }
    }

    /// A JPEG file with 4:2:0 chroma.
    /// - Parameter quality: 1 to 100, as libjpeg counts; values outside are clamped.
    /// - Throws: ``ImageError/encoding(format:reason:)``, also for sides above the 65,500 pixels that libjpeg writes.
    package static func jpeg(_ image: RGBImage, quality: Int = 92) throws -> [UInt8] {
        let clamped = Int32(min(max(quality, 1), 100))
        return try encode(image, format: .jpeg) { data, size, rgb, width, height, message in
            cis_jpeg_encode(data, size, rgb, width, height, clamped, message)
        }
    }

    private static func encode(
        _ image: RGBImage, format: ImageFormat,
        _ write: (
            UnsafeMutablePointer<UnsafeMutablePointer<UInt8>?>, UnsafeMutablePointer<Int>, UnsafePointer<UInt8>, UInt32, UInt32,
            UnsafeMutablePointer<CChar>
        ) -> cis_status
    ) throws -> [UInt8] {
        var message = [CChar](repeating: 0, count: Int(CIS_MESSAGE_CAPACITY))
        var data: UnsafeMutablePointer<UInt8>?
        var size = 0
        let status = image.pixels.withUnsafeBufferPointer { pixels in
            message.withUnsafeMutableBufferPointer { text in
                guard let rgb = pixels.baseAddress, let text = text.baseAddress else { return CIS_NO_MEMORY }
                return write(&data, &size, rgb, UInt32(image.width), UInt32(image.height), text)
            }
        }
        defer { cis_free(data) }
        guard status == CIS_OK, let data else {
            throw ImageError.encoding(format: format, reason: status == CIS_NO_MEMORY ? "out of memory" : CodecCall.text(message))
        }
        return [UInt8](UnsafeBufferPointer(start: data, count: size))
    }
}
