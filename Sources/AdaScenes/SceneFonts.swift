import Foundation

/// Pictograms and alphabets. All are rendered once, on creation, and are plain data afterwards.
struct SceneFonts: Sendable {
    /// Trimmed, about 128 pixels high.
    let pictograms: [Pictogram: Tile]
    /// `[font][pixel height]`, fonts in the order of ``TextFont/allCases``.
    private let alphabets: [[Int: SceneAlphabet]]

    /// The fonts that print words. Two of ten draws use fonts that Scenes' reference script does not have.
    enum TextFont: Int, CaseIterable, Sendable {
        case dejaVuSansBold, dejaVuSerifBold, dejaVuSansMonoBold, dejaVuSans, liberationSansBold, liberationSerifBold

        var file: String {
            switch self {
            case .dejaVuSansBold: "DejaVuSans-Bold.ttf"
            case .dejaVuSerifBold: "DejaVuSerif-Bold.ttf"
            case .dejaVuSansMonoBold: "DejaVuSansMono-Bold.ttf"
            case .dejaVuSans: "DejaVuSans.ttf"
            case .liberationSansBold: "LiberationSans-Bold.ttf"
            case .liberationSerifBold: "LiberationSerif-Bold.ttf"
            }
        }

        /// The Debian package that brings it.
        var package: String {
            switch self {
            case .dejaVuSansBold, .dejaVuSerifBold, .dejaVuSansMonoBold, .dejaVuSans: "fonts-dejavu-core"
            case .liberationSansBold, .liberationSerifBold: "fonts-liberation"
            }
        }

        static func pick(_ random: inout SceneRandom) -> TextFont {
            let usual: [TextFont] = [.dejaVuSansBold, .dejaVuSerifBold]
            return random.pick(random.chance(0.8) ? usual : allCases.filter { !usual.contains($0) }) ?? .dejaVuSansBold
        }
    }

    /// Font sizes of words in a picture of 112 pixels. Below the classic 14 to 16 and 24 to 26 come those of longer words that must fit.
    static let letterHeights = 10...26

    /// The installed fonts for pictures of 112 pixels, rendered once a process.
    static let standard = Result { try SceneFonts(folders: standardFolders, pictureSize: SceneLayout.classicSize) }

    /// Where systems keep these fonts.
    static let standardFolders = [
        "/usr/share/fonts/truetype/noto", "/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/truetype/liberation",
        "/usr/share/fonts/noto",
        "/usr/share/fonts/TTF", "/usr/share/fonts/liberation", "/usr/share/fonts/google-noto-color-emoji-fonts",
        "/usr/share/fonts/dejavu-sans-fonts", "/usr/share/fonts/dejavu-serif-fonts", "/usr/share/fonts/dejavu-sans-mono-fonts",
        "/usr/share/fonts/liberation-sans", "/usr/share/fonts/liberation-serif", "/usr/local/share/fonts", "/opt/homebrew/share/fonts",
        "/Library/Fonts",
    ]

    /// - Parameter pictureSize: side of the pictures, in pixels, that letters are rendered for.
    /// - Throws: ``SceneError/fontMissing(font:package:searched:)``, ``SceneError/fontUnusable(file:reason:)``
    init(folders: [String], pictureSize: Int) throws {
        let pictogramFile = try Self.find("NotoColorEmoji.ttf", package: "fonts-noto-color-emoji", in: folders)
        let textFiles = try TextFont.allCases.map { try Self.find($0.file, package: $0.package, in: folders) }
        let library = try FreeTypeLibrary()
        let emoji = try library.face(pictogramFile)
        try emoji.selectColourBitmaps()
        var pictograms: [Pictogram: Tile] = [:]
        for pictogram in Pictogram.all { pictograms[pictogram] = try emoji.colourTile(pictogram.character).trimmed() }
        self.pictograms = pictograms
        alphabets = try Self.alphabets(textFiles, library: library, pictureSize: pictureSize)
    }

    /// These pictograms, with letters for pictures of another size.
    func resized(folders: [String], pictureSize: Int) throws -> SceneFonts {
        let files = try TextFont.allCases.map { try Self.find($0.file, package: $0.package, in: folders) }
        return SceneFonts(
            pictograms: pictograms, alphabets: try Self.alphabets(files, library: FreeTypeLibrary(), pictureSize: pictureSize))
    }

    private init(pictograms: [Pictogram: Tile], alphabets: [[Int: SceneAlphabet]]) {
        (self.pictograms, self.alphabets) = (pictograms, alphabets)
    }

    /// - Parameter height: font size in a picture of 112 pixels, one of ``letterHeights``.
    func alphabet(_ font: TextFont, height: Int) -> SceneAlphabet? {
        alphabets.indices.contains(font.rawValue) ? alphabets[font.rawValue][height] : nil
    }

    private static func alphabets(_ files: [String], library: FreeTypeLibrary, pictureSize: Int) throws -> [[Int: SceneAlphabet]] {
        try files.map { file in
            let face = try library.face(file)
            var alphabets: [Int: SceneAlphabet] = [:]
            for height in letterHeights {
                let pixels = max(1, height * pictureSize / SceneLayout.classicSize)
                try face.setPixelHeight(pixels)
                alphabets[height] = try SceneAlphabet(face: face, margin: max(1, 4 * pictureSize / SceneLayout.classicSize))
            }
            return alphabets
        }
    }

    private static func find(_ file: String, package: String, in folders: [String]) throws -> String {
        let paths = folders.map { $0 + "/" + file }
        guard let path = paths.first(where: { FileManager.default.fileExists(atPath: $0) }) else {
            throw SceneError.fontMissing(font: file, package: package, searched: folders)
        }
        return path
    }
}
