import Testing

@testable import AdaLLaVA

@Suite struct JoinedTextTests {
    // A failure means that the first word of an answer waits, that a slow model's words come late, or that text is lost or said twice.
    @Test("only what comes too soon waits") func onlyWhatComesTooSoonWaits() {
        var joined = JoinedText()
        let start = ContinuousClock.now
        func at(_ milliseconds: Int) -> ContinuousClock.Instant { start + .milliseconds(milliseconds) }
        #expect(joined.add("", at: at(0)) == "")
        #expect(joined.add("A", at: at(5)) == "A")
        #expect(joined.add(" red", at: at(9)) == "")
        #expect(joined.add("", at: at(14)) == "")
        // Half a character gives no text, but what waited goes.
        #expect(joined.add("", at: at(20)) == " red")
        #expect(joined.add("", at: at(200)) == "")
        #expect(joined.add(" ball", at: at(300)) == " ball")
        #expect(joined.add(" lies", at: at(420)) == " lies")
        #expect(joined.add(" here", at: at(421)) == "")
        #expect(joined.rest() == " here")
        // Tokens of a steady pace go in twos where two take less than 15 ms, else one by one.
        for (pace, expected) in [(4, 3), (6, 2), (7, 2), (8, 1), (40, 1)] {
            var steady = JoinedText(), sizes: [Int] = []
            for token in 1 ... 30 {
                let sent = steady.add("x", at: at(1000 + token * pace))
                if !sent.isEmpty { sizes.append(sent.count) }
            }
            #expect(sizes.dropFirst().allSatisfy { $0 == expected }, "\(pace): \(sizes)")
        }
        #expect(joined.rest() == "")
    }
}
