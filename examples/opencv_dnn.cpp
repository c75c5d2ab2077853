// g++ examples/opencv_dnn.cpp -o opencv_dnn -I/usr/include/opencv4 -lopencv_dnn -lopencv_imgcodecs -lopencv_core
#include <iostream>
#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>

int main() {
    cv::dnn::Net net = cv::dnn::readNetFromTensorflow("models/landmark.pb");
    cv::Mat crop = cv::imread("images/astronaut.jpg");  // BGR, cut around the face
    net.setInput(cv::dnn::blobFromImage(crop, 1.0, cv::Size(128, 128)));  // no mean, no scale, no channel swap
    cv::Mat points = net.forward().reshape(1, 68);
    points.col(0) *= crop.cols;
    points.col(1) *= crop.rows;
    std::cout << points << std::endl;  // x, y in pixels of the crop
}
