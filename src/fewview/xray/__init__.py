"""Volume to X-ray views: attenuation, geometry, projector, detector and the files of views."""
