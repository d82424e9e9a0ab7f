import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// The published networks against PyTorch, where `scripts/fetch-efficientnet.sh` has put them (`make check-slow` does).
@Suite(.serialized) struct EfficientNetWeightsTests {
    struct Record: Decodable {
        struct Sample: Decodable {
            let step: Int
            let values: [Float]
            let tokenSums: [Double]
            let squareSum: Double
        }
        struct Image: Decodable {
            let float32, float16: Sample
        }
        let imageSize: Int
        let images: [String: Image]
    }

    private static func tower(_ variant: String) -> URL { Fixtures.root.appendingPathComponent("build/models/efficientnet-\(variant)") }

    static let present = ["lite0", "lite1", "lite2"].filter {
        FileManager.default.fileExists(atPath: tower($0).appendingPathComponent("model.safetensors").path)
    }

    private func picture(_ name: String, side: Int) throws -> RGBImage {
        let whole = try RGBImage(contentsOf: Fixtures.url("efficientnet/\(name).png").path)
        let rows = (0 ..< side).flatMap { whole.pixels[$0 * whole.width * 3 ..< ($0 * whole.width + side) * 3] }
        return try #require(RGBImage(width: side, height: side, pixels: rows))
    }

    /// Largest difference of a recorded value and of a token's sum over its width.
    private func compare(_ features: [Float], _ sample: Record.Sample, width: Int) -> (value: Float, mean: Double) {
        let found = stride(from: 0, to: features.count, by: sample.step).map { features[$0] }
        let sums = stride(from: 0, to: features.count, by: width).map { start in
            features[start ..< start + width].reduce(0) { $0 + Double($1) }
        }
        guard sums.count == sample.tokenSums.count else { return (.infinity, .infinity) }
        let mean = zip(sums, sample.tokenSums).reduce(0) { max($0, abs($1.0 - $1.1) / Double(width)) }
        return (largestDifference(found, sample.values), mean)
    }

    // A mismatch means that the published weights give other features than the PyTorch package. With the weights rounded to 16 bits there as
    // here, only float32 arithmetic is left between the two; against the package itself, that rounding.
    @Test("features are PyTorch's", arguments: present, kernelSets) func featuresArePyTorchs(variant: String, kernels: String) throws {
        let records: [String: Record] = try Fixtures.json("efficientnet/expected.json")
        let record = try #require(records[variant])
        let tower = try VisionTower(contentsOf: Self.tower(variant), precision: .f32, kernels: kernels)
        #expect(tower.configuration.imageSize == record.imageSize)
        for (name, image) in record.images {
            let features = try tower.features(of: [picture(name, side: record.imageSize)])[0]
            let close = compare(features, image.float16, width: tower.width)
            let whole = compare(features, image.float32, width: tower.width)
            print("\(variant) \(name) \(kernels): \(close.value) and \(close.mean) a value; against float32 weights \(whole.value), \(whole.mean)")
            #expect(close.value < 5e-4 && close.mean < 2e-5)
            #expect(whole.value < 1 && whole.mean < 0.02)
            let squares = features.reduce(0) { $0 + Double($1) * Double($1) }
            #expect(abs(squares / image.float16.squareSum - 1) < 1e-4)
        }
    }
}
