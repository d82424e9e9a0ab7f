import CFreeType

/// FreeType's library handle. Used on one thread, while fonts are loaded.
final class FreeTypeLibrary {
    private let handle: FT_Library

    init() throws {
        var handle: FT_Library?
        guard FT_Init_FreeType(&handle) == 0, let handle else {
            throw SceneError.fontUnusable(file: "FreeType", reason: "the library could not be started")
        }
        self.handle = handle
    }

    deinit { FT_Done_FreeType(handle) }

    func face(_ file: String) throws -> FreeTypeFace {
        var face: FT_Face?
        let code = FT_New_Face(handle, file, 0, &face)
        guard code == 0, let face else { throw SceneError.fontUnusable(file: file, reason: "FreeType error \(code) on opening it") }
        return FreeTypeFace(face, file: file, library: self)
    }
}

/// One open font.
final class FreeTypeFace {
    private let face: FT_Face
    private let file: String
    /// Must outlive the face.
    private let library: FreeTypeLibrary

    init(_ face: FT_Face, file: String, library: FreeTypeLibrary) {
        (self.face, self.file, self.library) = (face, file, library)
    }

    deinit { FT_Done_Face(face) }

    private func fail(_ reason: String) -> SceneError { .fontUnusable(file: file, reason: reason) }

    func selectColourBitmaps() throws {
        guard face.pointee.num_fixed_sizes > 0, FT_Select_Size(face, 0) == 0 else {
            throw fail("expected colour bitmaps (the CBDT build of Noto Color Emoji, as Debian packages it), found none")
        }
    }

    func setPixelHeight(_ pixels: Int) throws {
        guard FT_Set_Pixel_Sizes(face, 0, FT_UInt(pixels)) == 0 else { throw fail("it has no outlines of \(pixels) pixels") }
    }

    private func glyph(of scalar: Unicode.Scalar) throws -> FT_UInt {
        let index = FT_Get_Char_Index(face, FT_ULong(scalar.value))
        guard index != 0 else { throw fail("no glyph for U+\(String(scalar.value, radix: 16, uppercase: true))") }
        return index
    }

    /// Loads and renders one character.
    private func render(_ scalar: Unicode.Scalar, flags: Int32) throws -> FT_GlyphSlot {
        let code = FT_Load_Glyph(face, try glyph(of: scalar), flags | FT_Int32(FT_LOAD_RENDER))
        guard code == 0, let slot = face.pointee.glyph else {
            throw fail(
                "FreeType error \(code) on U+\(String(scalar.value, radix: 16, uppercase: true)) (colour bitmaps need FreeType with PNG)")
        }
        return slot
    }

    func colourTile(_ scalar: Unicode.Scalar) throws -> Tile {
        let bitmap = try render(scalar, flags: FT_Int32(FT_LOAD_COLOR)).pointee.bitmap
        let (width, height, pitch) = (Int(bitmap.width), Int(bitmap.rows), Int(bitmap.pitch))
        guard UInt32(bitmap.pixel_mode) == UInt32(FT_PIXEL_MODE_BGRA.rawValue), width > 0, height > 0, pitch >= width * 4,
            let buffer = bitmap.buffer
        else { throw fail("the glyph of U+\(String(scalar.value, radix: 16, uppercase: true)) has no colours") }
        var tile = Tile(width: width, height: height)
        for y in 0..<height {
            for x in 0..<width {
                let source = buffer + y * pitch + x * 4
                tile.pixels[y * width + x] = SIMD4(Float(source[2]), Float(source[1]), Float(source[0]), Float(source[3])) / 255
            }
        }
        return tile
    }

    /// A letter at the current height, on whole pixels.
    func letter(_ scalar: Unicode.Scalar) throws -> SceneAlphabet.Letter {
        let slot = try render(scalar, flags: FT_Int32(FT_LOAD_DEFAULT)).pointee
        let bitmap = slot.bitmap
        let (width, height, pitch) = (Int(bitmap.width), Int(bitmap.rows), Int(bitmap.pitch))
        guard UInt32(bitmap.pixel_mode) == UInt32(FT_PIXEL_MODE_GRAY.rawValue), width > 0, height > 0, pitch >= width,
            let buffer = bitmap.buffer
        else { throw fail("the letter \(scalar) has no picture") }
        let mask = (0..<height).flatMap { y in (0..<width).map { Float(buffer[y * pitch + $0]) / 255 } }
        return SceneAlphabet.Letter(
            width: width, height: height, mask: mask, left: Int(slot.bitmap_left), top: Int(slot.bitmap_top),
            advance: (Int(slot.advance.x) + 32) >> 6, exactAdvance: Double(slot.linearHoriAdvance) / 65_536)
    }

    /// Kerning of a pair of letters in pixels, negative for closer: in whole pixels, and before rounding.
    func kerning(_ first: Unicode.Scalar, _ second: Unicode.Scalar) throws -> (pixels: Int, exact: Double) {
        let pair = (try glyph(of: first), try glyph(of: second))
        func kerning(_ mode: FT_Kerning_Mode) -> Int {
            var vector = FT_Vector()
            return FT_Get_Kerning(face, pair.0, pair.1, FT_UInt(mode.rawValue), &vector) == 0 ? Int(vector.x) : 0
        }
        return ((kerning(FT_KERNING_DEFAULT) + 32) >> 6, Double(kerning(FT_KERNING_UNFITTED)) / 64)
    }
}
