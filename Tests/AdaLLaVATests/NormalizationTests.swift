import Foundation
import Testing

@testable import AdaLLaVA

/// Unicode's normalization forms, as tokenizers ask for them.
@Suite struct NormalizationTests {
    // A mismatch means that texts in some scripts get other tokens than the model was trained with.
    @Test("Unicode normal forms are those of the standard") func everyForm() throws {
        let text = String(decoding: try Files.data(Fixtures.url("unicode/normalization.txt")), as: UTF8.self)
        func bytes(_ scalars: Substring) throws -> [UInt8] {
            try scalars.split(separator: " ").flatMap { digits -> [UInt8] in
                Array(String(try #require(UInt32(digits, radix: 16).flatMap(Unicode.Scalar.init))).utf8)
            }
        }
        var lines = 0
        for line in text.split(separator: "\n") {
            let columns = try line.split(separator: ";").map(bytes)
            try #require(columns.count == 5)
            lines += 1
            for (index, source) in columns.enumerated() {
                let isCompatible = index > 2
                #expect(TextNormalizer.composed.apply(source) == columns[isCompatible ? 3 : 1], "NFC of \(line)")
                #expect(TextNormalizer.decomposed.apply(source) == columns[isCompatible ? 4 : 2], "NFD of \(line)")
                #expect(TextNormalizer.compatibilityComposed.apply(source) == columns[3], "NFKC of \(line)")
                #expect(TextNormalizer.compatibilityDecomposed.apply(source) == columns[4], "NFKD of \(line)")
            }
        }
        #expect(lines == 8617)
    }

    // A mismatch means that half-width kana lose their voiced marks.
    @Test("half-width kana keep their voiced marks") func halfWidthKana() {
        #expect(TextNormalizer.compatibilityComposed.apply(Array("\u{FF76}\u{FF9E}".utf8)) == Array("\u{30AC}".utf8))
    }
}
