import CWebP

/// WebP through libwebp: lossy and lossless; of an animation the first frame, on a black canvas.
enum WebPFile {
    static func decode(_ file: EncodedImage) throws -> DecodedImage {
        try file.bytes.withUnsafeBufferPointer { buffer in
            var data = WebPData(bytes: buffer.baseAddress, size: buffer.count)
            var features = WebPBitstreamFeatures()
            if WebPGetFeatures(buffer.baseAddress, buffer.count, &features) == VP8_STATUS_OK {
                try file.checkSize(width: Int(features.width), height: Int(features.height))
            }
            try checkLength(file)
            guard let demuxer = WebPDemux(&data) else { throw file.damaged("the container's chunks do not fit together") }
            defer { WebPDemuxDelete(demuxer) }
            let width = Int(WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH))
            let height = Int(WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT))
            try file.checkSize(width: width, height: height)
            var frame = WebPIterator()
            guard WebPDemuxGetFrame(demuxer, 1, &frame) != 0 else { throw file.damaged("no frame in it") }
            defer { WebPDemuxReleaseIterator(&frame) }
            let pixels = try firstFrame(frame, width: width, height: height, file: file)
            return DecodedImage(width: width, height: height, pixels: pixels, orientation: orientation(demuxer))
        }
    }

    static func size(_ file: EncodedImage) throws -> (width: Int, height: Int) {
        var features = WebPBitstreamFeatures()
        switch WebPGetFeatures(file.bytes, file.bytes.count, &features) {
        case VP8_STATUS_OK: return (Int(features.width), Int(features.height))
        case VP8_STATUS_NOT_ENOUGH_DATA: throw file.truncated("the data end inside the header")
        default: throw file.damaged("its header is not that of a picture")
        }
    }

    /// The RIFF header gives the file's length, which distinguishes a truncated file from a damaged one.
    private static func checkLength(_ file: EncodedImage) throws {
        guard let announced = file.reader.u32LittleEndian(4) else { throw file.truncated("the data end inside the header") }
        guard announced <= file.bytes.count - 8 else {
            throw file.truncated("the header says \(announced + 8) bytes, found \(file.bytes.count)")
        }
    }

    private static func firstFrame(_ frame: WebPIterator, width: Int, height: Int, file: EncodedImage) throws -> [UInt8] {
        let (left, top) = (Int(frame.x_offset), Int(frame.y_offset))
        let (frameWidth, frameHeight) = (Int(frame.width), Int(frame.height))
        guard left >= 0, top >= 0, frameWidth > 0, frameHeight > 0, left <= width - frameWidth, top <= height - frameHeight else {
            throw file.damaged("its first frame is outside the canvas of \(width) x \(height)")
        }
        // The frame's own header is believed only where it agrees with the container.
        var features = WebPBitstreamFeatures()
        guard WebPGetFeatures(frame.fragment.bytes, frame.fragment.size, &features) == VP8_STATUS_OK,
            Int(features.width) == frameWidth, Int(features.height) == frameHeight
        else { throw file.damaged("its first frame's header does not fit the container's") }
        var isDecoded = false
        let pixels = [UInt8](unsafeUninitializedCapacity: width * height * 3) { target, count in
            let isWholeCanvas = frameWidth == width && frameHeight == height
            if !isWholeCanvas { target.initialize(repeating: 0) }
            let start = (top * width + left) * 3
            guard let base = target.baseAddress else { return }
            isDecoded =
                WebPDecodeRGBInto(
                    frame.fragment.bytes, frame.fragment.size, base + start, target.count - start, Int32(width * 3)) != nil
            count = isDecoded ? target.count : 0
        }
        guard isDecoded else { throw file.damaged("its pixel data cannot be decoded") }
        return pixels
    }

    private static func orientation(_ demuxer: OpaquePointer) -> ExifOrientation {
        OrientationMetadata(exif: chunk("EXIF", demuxer), xmp: chunk("XMP ", demuxer)).orientation
    }

    /// The first chunk of a kind; `nil` for an empty one too.
    private static func chunk(_ kind: String, _ demuxer: OpaquePointer) -> [UInt8]? {
        var chunk = WebPChunkIterator()
        guard WebPDemuxGetChunk(demuxer, kind, 1, &chunk) != 0 else { return nil }
        defer { WebPDemuxReleaseChunkIterator(&chunk) }
        return chunk.chunk.size > 0 ? Array(UnsafeBufferPointer(start: chunk.chunk.bytes, count: chunk.chunk.size)) : nil
    }
}
