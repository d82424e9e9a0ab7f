import CFreeType
import Foundation

/// The fonts that scenes are drawn with. Everything is rendered once, on creation; afterwards it is plain data.
struct SceneFonts: Sendable {
    /// `[pictogram]`, trimmed, about 128 pixels high.
    let pictograms: [Pictogram: Tile]
    /// Mean colour of every pictogram, 0 to 255.
    let meanColours: [Pictogram: [Double]]
    /// The printed alphabets, one a font.
    let alphabets: [Alphabet]

    /// Capital letters of one font as coverage masks.
    struct Alphabet: Sendable {
        struct Letter: Sendable {
            let width: Int
            let height: Int
            /// Coverage, 0 to 255, `height * width`.
            let mask: [UInt8]
            /// From the pen to the mask's left column, and from the baseline up to its top row, in pixels.
            let left: Int
            let top: Int
            /// How far the pen moves, in pixels.
            let advance: Int
        }

        let letters: [Character: Letter]
    }

    /// A font file and the Debian package that brings it.
    private struct Font {
        let file: String
        let package: String
    }

    private static let pictogramFont = Font(file: "NotoColorEmoji.ttf", package: "fonts-noto-color-emoji")
    private static let textFonts = [
        Font(file: "DejaVuSans-Bold.ttf", package: "fonts-dejavu-core"),
        Font(file: "DejaVuSerif-Bold.ttf", package: "fonts-dejavu-core"),
    ]

    /// The installed fonts, rendered once a process.
    static let standard = Result { try SceneFonts(folders: standardFolders) }

    /// Where systems keep these fonts.
    static let standardFolders = [
        "/usr/share/fonts/truetype/noto", "/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/noto", "/usr/share/fonts/TTF",
        "/usr/share/fonts/google-noto-color-emoji-fonts", "/usr/share/fonts/dejavu-sans-fonts", "/usr/share/fonts/dejavu-serif-fonts",
        "/usr/local/share/fonts", "/opt/homebrew/share/fonts", "/Library/Fonts",
    ]

    /// Letters are rendered this large and scaled down, so that one rendering serves every size.
    static let letterPixels: UInt32 = 72

    /// - Throws: ``SceneError/fontMissing(font:package:searched:)``, ``SceneError/fontUnusable(file:reason:)``
    init(folders: [String]) throws {
        let pictogramFile = try Self.find(Self.pictogramFont, in: folders)
        let textFiles = try Self.textFonts.map { try Self.find($0, in: folders) }
        let library = try FreeTypeLibrary()
        let emoji = try library.face(pictogramFile)
        try emoji.selectColourBitmaps()
        var pictograms: [Pictogram: Tile] = [:]
        for pictogram in Pictogram.all { pictograms[pictogram] = try emoji.colourTile(pictogram.character).trimmed() }
        self.pictograms = pictograms
        meanColours = pictograms.mapValues(\.meanColour)
        alphabets = try textFiles.map { file in
            let face = try library.face(file)
            try face.setPixelHeight(Self.letterPixels)
            var letters: [Character: Alphabet.Letter] = [:]
            for scalar in "ABCDEFGHIJKLMNOPQRSTUVWXYZ".unicodeScalars { letters[Character(scalar)] = try face.letter(scalar) }
            return Alphabet(letters: letters)
        }
    }

    private static func find(_ font: Font, in folders: [String]) throws -> String {
        let paths = folders.map { $0 + "/" + font.file }
        guard let path = paths.first(where: { FileManager.default.fileExists(atPath: $0) }) else {
            throw SceneError.fontMissing(font: font.file, package: font.package, searched: folders)
        }
        return path
    }
}

/// FreeType's library handle. Used on one thread, while fonts are loaded.
private final class FreeTypeLibrary {
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
private final class FreeTypeFace {
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

    func setPixelHeight(_ pixels: UInt32) throws {
        guard FT_Set_Pixel_Sizes(face, 0, pixels) == 0 else { throw fail("it has no outlines of \(pixels) pixels") }
    }

    /// Loads and renders one character.
    private func render(_ scalar: Unicode.Scalar, flags: Int32) throws -> FT_GlyphSlot {
        let index = FT_Get_Char_Index(face, FT_ULong(scalar.value))
        guard index != 0 else { throw fail("no glyph for U+\(String(scalar.value, radix: 16, uppercase: true))") }
        let code = FT_Load_Glyph(face, index, flags | FT_Int32(FT_LOAD_RENDER))
        guard code == 0, let slot = face.pointee.glyph else {
            throw fail("FreeType error \(code) on U+\(String(scalar.value, radix: 16, uppercase: true)) (colour bitmaps need FreeType with PNG)")
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
                let target = (y * width + x) * 4
                for channel in 0..<3 { tile.values[target + channel] = Float(source[2 - channel]) / 255 }
                tile.values[target + 3] = Float(source[3]) / 255
            }
        }
        return tile
    }

    func letter(_ scalar: Unicode.Scalar) throws -> SceneFonts.Alphabet.Letter {
        let slot = try render(scalar, flags: FT_Int32(FT_LOAD_NO_HINTING)).pointee
        let bitmap = slot.bitmap
        let (width, height, pitch) = (Int(bitmap.width), Int(bitmap.rows), Int(bitmap.pitch))
        guard UInt32(bitmap.pixel_mode) == UInt32(FT_PIXEL_MODE_GRAY.rawValue), width > 0, height > 0, pitch >= width,
            let buffer = bitmap.buffer
        else { throw fail("the letter \(scalar) has no picture") }
        let mask = (0..<height).flatMap { y in (0..<width).map { buffer[y * pitch + $0] } }
        return SceneFonts.Alphabet.Letter(
            width: width, height: height, mask: mask, left: Int(slot.bitmap_left), top: Int(slot.bitmap_top),
            advance: Int(slot.advance.x) >> 6)
    }
}
