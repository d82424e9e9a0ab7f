import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaServer

/// Where the latency token looks.
@Suite struct AttentionTests {
    // A difference means that the page shows something else than what the scheduler read.
    @Test("the latency token's attention is that of a trace, also beside other answers") func trace() async throws {
        let model = try await Scenes.model, image = try ImageDecoder.decode(try Scenes.image(14))
        let expected = try await Scenes.asked("Describe the image.", images: [14])
        try await TestServer.run { server in
            async let answers = withThrowingTaskGroup(of: String?.self) { group in
                for _ in 0 ..< 4 { group.addTask { try await server.chat("Describe the image.", images: [14]).json()["choices"][0]["message"]["content"].string } }
                return try await group.reduce(into: [String?]()) { $0.append($1) }
            }
            for units in [0, 3, 6] {
                let request = try TestServer.chat("Describe the image.", images: [14], ["units": units])
                let report = try await server.request("POST", "/v1/attention", request).json()
                let fraction = try #require(model.fraction(buying: units))
                let trace = try await model.trace(
                    tokens: try model.tokenize([.question("Describe the image.", images: 1)]), images: [image], budget: .fraction(fraction), maxTokens: 1, includesAttention: true)
                let entry = try #require(trace.entries["latency_attention.1"]), place = try #require(try model.tokenize([.question("Describe the image.", images: 1)]).firstIndex(of: -200))
                let (heads, positions) = (entry.shape[0], entry.shape[1])
                let weights = (place ..< place + 49).map { position in (0 ..< heads).reduce(0.0) { $0 + Double(entry.values[$1 * positions + position]) } / Double(heads) }
                #expect(report["grid"].int == 7 && report["layers"].array?.count == 2 && report["crops"].bool == model.cropsImages)
                let told = try #require(report["weights"].array).compactMap(\.double)
                #expect(told.count == 49 && zip(told, weights).allSatisfy { abs($0 - $1) < 1e-9 })
                #expect(abs((report["layers"][1]["image_share"].double ?? 0) - weights.reduce(0, +)) < 1e-9)
            }
            #expect(try await answers == Array(repeating: expected.text, count: 4))
        }
    }

    @Test("requests without one image, or with times, are refused") func refusals() async throws {
        try await TestServer.run { server in
            for request in [
                try TestServer.chat("Hi"), try TestServer.chat("Hi", images: [1, 2]), try TestServer.chat("Hi", images: [1], ["budget": "400ms"]),
                try TestServer.chat("Hi", images: [1], ["units": -1]),
            ] {
                let response = try await server.request("POST", "/v1/attention", request)
                #expect(try response.status == 400 && response.json()["error"]["message"].string?.isEmpty == false)
            }
        }
    }
}
